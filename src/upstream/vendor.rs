//! The wire to a vendor's API: from where the operator says that the API begins to the path of one
//! operation, and with the key of the account in the header that the vendor wants.

use reqwest::header::HeaderName;

use super::Pools;
use super::http::{Unusable, Wire};
use super::owner::Vendor;
use crate::config::{Endpoint, Secret};

/// One operation of an API, and how the vendor is asked for it.
pub(super) struct Operation<'a> {
    /// `/audio/speech`: what comes after `/v1`.
    pub(super) path: &'a str,
    pub(super) query: &'a [(&'static str, String)],
    pub(super) header: HeaderName,
    /// What stands before the key, with the space: `"Bearer "`.
    pub(super) scheme: &'static str,
    /// What the operator can set of the request, by the names in the configuration.
    pub(super) keys: &'static [&'static str],
}

impl Operation<'_> {
    pub(super) fn wire(
        self,
        endpoint: &Endpoint,
        api_key: Option<&Secret>,
        pools: &mut Pools,
    ) -> Result<Wire, Unusable> {
        let path = path_of(&endpoint.path, self.path, self.query);
        let wire = pools.wire(&Endpoint { path, ..endpoint.clone() })?;
        wire.of_vendor(Vendor::new(api_key.cloned(), self.keys), self.header, self.scheme)
    }
}

/// As the vendors' own clients have it, an operation goes after the base of an API. A bare host has
/// its API under `/v1`, and a path that ends in the operation already is the whole of it. A query in
/// the base stays: self-hosted services and clouds keep versions there.
fn path_of(base: &str, operation: &str, query: &[(&'static str, String)]) -> String {
    let (base, kept) = base.split_once('?').unwrap_or((base, ""));
    let base = base.trim_end_matches('/');
    let mut path = match base {
        base if base.ends_with(operation) => base.to_owned(),
        "" => format!("/v1{operation}"),
        base => format!("{base}{operation}"),
    };
    let asked = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    for part in [kept, &asked].into_iter().filter(|part| !part.is_empty()) {
        path.push(if path.contains('?') { '&' } else { '?' });
        path += part;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_goes_after_the_base_of_the_api() {
        let speech = |base| path_of(base, "/audio/speech", &[]);
        assert_eq!(speech("/"), "/v1/audio/speech", "a bare host");
        assert_eq!(speech("/v1"), "/v1/audio/speech");
        assert_eq!(speech("/v1/"), "/v1/audio/speech");
        assert_eq!(speech("/openai/v1"), "/openai/v1/audio/speech", "as Groq has it");
        assert_eq!(speech("/v1/audio/speech"), "/v1/audio/speech", "all of it");
        assert_eq!(
            speech("/openai/deployments/tts?api-version=1"),
            "/openai/deployments/tts/audio/speech?api-version=1",
            "as Azure has it"
        );
        let query = [("model", "a b&c".to_owned()), ("encoding", "mulaw".to_owned())];
        assert_eq!(path_of("/", "/speak", &query), "/v1/speak?model=a+b%26c&encoding=mulaw");
        assert_eq!(path_of("/v1?x=1", "/speak", &query[1..]), "/v1/speak?x=1&encoding=mulaw");
    }
}
