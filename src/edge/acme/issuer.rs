//! One order at an issuer: the account, the proof of each name, the certificate.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error,
    HttpClient, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use reqwest::redirect;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::folder::Folder;
use crate::config::Acme;

/// How long the issuer may take to look at the proofs, and then to issue.
const PATIENCE: RetryPolicy = RetryPolicy::new().backoff(1.5).timeout(Duration::from_mins(2));
/// For one request.
const REQUEST: Duration = Duration::from_secs(30);
/// The longest answer. A chain of certificates is some kilobytes.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// A certificate with its chain and its key, as PEM.
pub(super) async fn order(acme: &Acme, folder: &Folder) -> Result<String, Fault> {
    match try_to_order(acme, folder).await {
        Err(fault) if fault.account_is_gone => {
            folder.forget_account();
            try_to_order(acme, folder).await
        }
        ordered => ordered,
    }
}

async fn try_to_order(acme: &Acme, folder: &Folder) -> Result<String, Fault> {
    let account = account(acme, folder).await?;
    let names: Vec<Identifier> = acme.names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let mut proofs = order.authorizations();
    while let Some(proof) = proofs.next().await {
        let mut proof = proof?;
        // Proved not long ago.
        if proof.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = proof.identifier().to_string();
        let no_way = || Fault::nonsense(format!("{name} cannot be proved by http-01 at this issuer"));
        let mut challenge = proof.challenge(ChallengeType::Http01).ok_or_else(no_way)?;
        folder.keep_proof(&challenge.token, challenge.key_authorization().as_str())?;
        challenge.set_ready().await?;
    }
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) | Err(Error::Api(_)) => return Err(unproved(&mut order).await),
        Err(error) => return Err(error.into()),
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(format!("{key}{chain}"))
}

/// Which name was not taken as proved, and why.
async fn unproved(order: &mut Order) -> Fault {
    let mut proofs = order.authorizations();
    while let Some(Ok(mut proof)) = proofs.next().await {
        if proof.refresh().await.is_err() {
            continue;
        }
        let name = proof.identifier().to_string();
        if let Some(problem) = proof.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Fault::of_name(&name, problem);
        }
    }
    order
        .state()
        .error
        .clone()
        .map_or_else(|| Fault::nonsense("the order was refused without a reason"), Fault::from)
}

/// The account as it is kept.
#[derive(Deserialize, Serialize)]
struct Kept {
    email: String,
    account: AccountCredentials,
}

async fn account(acme: &Acme, folder: &Folder) -> Result<Account, Fault> {
    let builder = || Ok::<_, Fault>(Account::builder_with_http(Box::new(Client::new(acme)?)));
    let contact = format!("mailto:{}", acme.email);
    let keep = |account| {
        let kept = serde_json::to_string(&Kept { email: acme.email.clone(), account });
        folder.keep_account(&kept.map_err(|error| Fault::nonsense(error.to_string()))?)
    };
    // What cannot be read is as good as none.
    let kept = folder.account().and_then(|kept| serde_json::from_str::<Kept>(&kept).ok());
    let Some(Kept { email, account }) = kept else {
        let new =
            NewAccount { contact: &[&contact], terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder()?.create(&new, acme.directory.clone(), None).await?;
        keep(credentials)?;
        return Ok(account);
    };
    if email == acme.email {
        return Ok(builder()?.from_credentials(account).await?);
    }
    let same = serde_json::to_string(&account).and_then(|text| serde_json::from_str(&text));
    let same = same.map_err(|error| Fault::nonsense(error.to_string()))?;
    let known = builder()?.from_credentials(account).await?;
    known.update_contacts(&[&contact]).await?;
    keep(same)?;
    Ok(known)
}

/// Requests to the issuer by the HTTP client that everything else goes by.
struct Client(reqwest::Client);

impl Client {
    fn new(acme: &Acme) -> Result<Client, Fault> {
        // Fails if the program has chosen before: just as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .referer(false)
            .redirect(redirect::Policy::none())
            .timeout(REQUEST);
        if let Some(root) = &acme.root {
            let pem = std::fs::read(root).map_err(|error| Fault::root(root, &error.to_string()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem);
            let roots = roots.map_err(|_| Fault::root(root, "holds no certificate"))?;
            if roots.is_empty() {
                return Err(Fault::root(root, "holds no certificate"));
            }
            builder = builder.tls_certs_only(roots);
        }
        builder.build().map(Client).map_err(|error| Fault::from(Error::Other(error.into())))
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Client {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let client = self.0.clone();
        Box::pin(async move {
            let other = |error: reqwest::Error| Error::Other(error.into());
            let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap)).map_err(other)?;
            let mut answer = client.execute(request).await.map_err(other)?;
            let mut head = http::Response::new(()).into_parts().0;
            head.status = answer.status();
            head.headers = std::mem::take(answer.headers_mut());
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(other)? {
                body.extend_from_slice(&piece);
                if body.len() > LONGEST_ANSWER {
                    return Err(Error::Str("an answer that is not too long"));
                }
            }
            Ok(BytesResponse { parts: head, body: Box::new(Bytes::from(body)) })
        })
    }
}
