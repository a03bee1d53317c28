//! Certificates by ACME, from Let's Encrypt's own test server: pebble, with a DNS that leads every name
//! here.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client};

use crate::world::{Gateway, MediaStream, TcpApp, Wire, block_on, free_port, header, project, run, until};

const NAMES: [&str; 2] = ["bot.example.com", "www.example.com"];

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("voxgate-acme-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    /// A certificate for these names that begins and ends so many days from now, with its key.
    fn certificate(&self, name: &str, names: &[&str], from: u64, to: u64) -> (PathBuf, PathBuf) {
        let days = |days| Duration::from_secs(days * 24 * 3600);
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = (SystemTime::now() - days(from)).into();
        params.not_after = (SystemTime::now() + days(to)).into();
        let key = KeyPair::generate().unwrap();
        let (cert, keys) = (self.0.join(format!("{name}.pem")), self.0.join(format!("{name}.key")));
        fs::write(&cert, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&keys, key.serialize_pem()).unwrap();
        (cert, keys)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where pebble is, and where it looks for proofs.
struct Place {
    root: PathBuf,
    key: PathBuf,
    port: u16,
    management: u16,
    dns: u16,
    proofs: u16,
}

impl Place {
    fn new(folder: &Folder) -> Place {
        let (root, key) = folder.certificate("pebble", &["127.0.0.1"], 1, 10);
        let ports = [(); 4].map(|()| free_port());
        Place { root, key, port: ports[0], management: ports[1], dns: ports[2], proofs: ports[3] }
    }

    /// The configuration of a gateway that gets its certificate there.
    fn config(&self, folder: &Folder, listen: u16) -> String {
        let Place { root, port, .. } = self;
        let state = folder.0.join("state");
        format!(
            "[server.acme]\nnames = {NAMES:?}\nemail = \"ops@example.com\"\naccept_terms = true\nretry = \"1s\"\n\
             listen = \"127.0.0.1:{listen}\"\nfolder = {state:?}\nroot = {root:?}\n\
             directory = \"https://127.0.0.1:{port}/dir\"\n"
        )
    }

    /// What the gateway keeps of this issuer.
    fn state(&self, folder: &Folder) -> PathBuf {
        folder.0.join(format!("state/127.0.0.1-{}-dir", self.port))
    }
}

/// The issuer and its DNS.
struct Pebble(Vec<Child>);

impl Pebble {
    fn start(folder: &Folder, place: &Place) -> Pebble {
        let Place { root, key, port, management, dns, proofs } = place;
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": root, "privateKey": key, "httpPort": proofs, "tlsPort": 1,
        }});
        let file = folder.0.join("pebble.json");
        fs::write(&file, config.to_string()).unwrap();
        let start = |name: &str, args: &[&str]| {
            let log = fs::File::create(folder.0.join(format!("{name}.log"))).unwrap();
            Command::new(project().join(".venv/pebble/usr/bin").join(name))
                .args(args)
                .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0")])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap()
        };
        let dns = format!("127.0.0.1:{dns}");
        let none = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "", "-defaultIPv6", ""];
        let names = start("pebble-challtestsrv", &[&none[..], &["-dns01", &dns]].concat());
        let issuer = start("pebble", &["-config", file.to_str().unwrap(), "-dnsserver", &dns]);
        let pebble = Pebble(vec![names, issuer]);
        let client = client(&[fs::read(root).unwrap()], 0);
        until("pebble", || get(&client, &format!("https://127.0.0.1:{port}/dir")).ok());
        pebble
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client that trusts these, and for whom the names lead to that port here.
fn client(roots: &[Vec<u8>], port: u16) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let roots = roots.iter().map(|pem| Certificate::from_pem(pem).unwrap());
    let client = Client::builder().no_proxy().tls_certs_only(roots);
    NAMES.iter().fold(client, |client, name| client.resolve(name, here)).build().unwrap()
}

fn get(client: &Client, url: &str) -> Result<(u16, Vec<u8>), reqwest::Error> {
    block_on(async {
        let answer = client.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.bytes().await?.to_vec()))
    })
}

/// Whoever trusts pebble trusts the gateway, by each of its names.
fn is_served(gateway: &Gateway, place: &Place, path: &str) {
    let management = client(&[fs::read(&place.root).unwrap()], 0);
    let (_, root) = get(&management, &format!("https://127.0.0.1:{}/roots/0", place.management)).unwrap();
    let client = client(&[root], gateway.port);
    for name in NAMES {
        let answer = get(&client, &format!("https://{name}:{}{path}", gateway.port)).unwrap();
        assert_eq!(answer.0, 200, "{name}");
    }
}

fn ask(port: u16, path: &str) -> (u16, String) {
    let answer = Wire::ask(port, &format!("GET {path} HTTP/1.1\r\nHost: bot.example.com\r\n\r\n"));
    (answer.status(), answer.text().to_owned())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn orders(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("voxgate_acme_orders_total{{result=\"{result}\"}}"))
}

#[test]
fn a_certificate_is_got_served_and_kept() {
    let folder = Folder::new("got");
    let place = Place::new(&folder);
    let pebble = Pebble::start(&folder, &place);
    let app = TcpApp::polite();
    let upstream = format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
    let config = format!("{}{upstream}", place.config(&folder, place.proofs));
    let mut gateway = Gateway::start(&config);
    let ordered = gateway.event("TLS_ORDERED", 0);
    assert_eq!(ordered["names"], "bot.example.com, www.example.com", "{ordered}");
    gateway.event("TLS_RELOADED", 0);
    is_served(&gateway, &place, "/page");
    assert_eq!(orders(&gateway, "issued"), 1.0);
    // Whichever of its names pebble has put first.
    let end = |name| format!("voxgate_tls_certificate_not_after_timestamp_seconds{{name=\"{name}\"}}");
    assert!(NAMES.iter().any(|name| gateway.metric(&end(name)) > 1.7e9));

    // The issuer asks on a listener that serves everything else as well, and is told nothing more.
    assert_eq!(ask(place.proofs, "/page"), (200, "from the app".into()));
    let heads = app.heads();
    let (https, http) = (header(&heads[0], "x-forwarded-proto"), header(&heads[2], "x-forwarded-proto"));
    assert_eq!((https, http), (Some("https"), Some("http")));
    for not_a_proof in ["", "x", "..%2faccount.json", "../account.json", "../../x"] {
        let path = format!("/.well-known/acme-challenge/{not_a_proof}");
        assert_eq!(ask(place.proofs, &path), (200, "from the app".into()), "{path}");
    }
    assert!(gateway.metric("voxgate_http_requests_total{code=\"2xx\",route=\"acme\"}") >= 2.0, "one a name");

    // For nobody else's eyes.
    let state = place.state(&folder);
    assert_eq!(
        (mode(&folder.0.join("state")), mode(&state), mode(&state.join("proofs"))),
        (0o700, 0o700, 0o700)
    );
    assert_eq!((mode(&state.join("account.json")), mode(&state.join("certificate.pem"))), (0o600, 0o600));
    assert_eq!(fs::read_dir(state.join("proofs")).unwrap().count(), 0);

    // Neither a successor nor a process after it asks again.
    assert_eq!(gateway.admin_post("/upgrade").0, 200);
    let second = gateway.event("STARTED", 1)["pid"].to_string();
    assert!(gateway.ended().success());
    is_served(&gateway, &place, "/page");
    run("kill", &[&second]);
    gateway.event("DRAIN_END", 1);
    assert_eq!(gateway.events("TLS_ORDERED").len(), 1);
    assert_eq!(gateway.noise(), Vec::<String>::new());
    let again = Gateway::start(&config);
    is_served(&again, &place, "/healthz");
    again.event("TLS_CERTIFICATE", 0);
    drop(pebble);
    assert_eq!(again.events("TLS_ORDERED").len() + again.events("TLS_NOT_ORDERED").len(), 0);
}

#[test]
fn without_its_issuer_the_gateway_serves_calls_and_tries_again() {
    let folder = Folder::new("away");
    let place = Place::new(&folder);
    let gateway = Gateway::start(&place.config(&folder, place.proofs));
    gateway.event("TLS_AWAITED", 0);
    let told = gateway.event("TLS_NOT_ORDERED", 1);
    assert_eq!((&told["level"], &told["in_use"]), (&"ERROR".into(), &"none".into()), "{told}");
    let why = told["why"].as_str().unwrap();
    assert!(why.starts_with("the issuer cannot be asked: ") && why.contains("refused"), "{why}");
    assert_eq!(told["cure"], "see that [server.acme] directory can be reached from here");
    assert!(orders(&gateway, "unreachable") >= 2.0);
    // Nobody is lied to; and who does without TLS is served.
    let refused =
        get(&client(&[], gateway.port), &format!("https://bot.example.com:{}/healthz", gateway.port));
    assert!(format!("{:?}", refused.unwrap_err()).contains("AccessDenied"));
    let mut call = MediaStream::try_open_on(place.proofs, "/ws/twilio-media").unwrap();
    call.begin();
    gateway.event("WS_START", 0);

    let _pebble = Pebble::start(&folder, &place);
    gateway.event("TLS_RELOADED", 0);
    is_served(&gateway, &place, "/healthz");
}

#[test]
fn a_refusal_is_explained_and_the_old_certificate_stays() {
    let folder = Folder::new("refused");
    let place = Place::new(&folder);
    // 90 of its 100 days are over.
    let (old, key) = folder.certificate("old", &NAMES, 90, 10);
    let state = place.state(&folder);
    fs::create_dir_all(&state).unwrap();
    let both = [fs::read(&key).unwrap(), fs::read(&old).unwrap()].concat();
    fs::write(state.join("certificate.pem"), both).unwrap();
    // Pebble looks for proof where nobody is.
    let pebble = Pebble::start(&folder, &place);
    let elsewhere = free_port();
    let gateway = Gateway::start(&place.config(&folder, elsewhere));
    let told = gateway.event("TLS_NOT_ORDERED", 0);
    let why = told["why"].as_str().unwrap();
    assert!(why.contains(".example.com: the issuer refuses (connection): "), "{why}");
    assert!(told["cure"].as_str().unwrap().contains("port 80"), "{told}");
    assert!(told["in_use"].as_str().unwrap().contains("20"), "{told}");
    assert_eq!(orders(&gateway, "refused"), 1.0);
    let url = format!("https://bot.example.com:{}/healthz", gateway.port);
    let shows_the_old = || get(&client(&[fs::read(&old).unwrap()], gateway.port), &url).is_ok();
    assert!(shows_the_old());

    // The way is free, and pebble has forgotten the account.
    drop(pebble);
    let place = Place { proofs: elsewhere, ..place };
    let _pebble = Pebble::start(&folder, &place);
    gateway.event("TLS_ORDERED", 0);
    gateway.event("TLS_RELOADED", 0);
    is_served(&gateway, &place, "/healthz");
    assert!(!shows_the_old());
}

#[test]
fn of_two_processes_one_orders() {
    let folder = Folder::new("two");
    let place = Place::new(&folder);
    let _pebble = Pebble::start(&folder, &place);
    // The other process is this one: it has an order under way, and then its certificate.
    let state = place.state(&folder);
    fs::create_dir_all(&state).unwrap();
    let lock = fs::File::create(state.join("lock")).unwrap();
    lock.lock().unwrap();
    let gateway = Gateway::start(&place.config(&folder, place.proofs));
    gateway.event("TLS_ORDER_WAITS", 0);
    let (cert, key) = folder.certificate("others", &NAMES, 1, 89);
    let both = [fs::read(&key).unwrap(), fs::read(&cert).unwrap()].concat();
    fs::write(state.join("certificate.pem"), both).unwrap();
    drop(lock);
    gateway.event("TLS_RELOADED", 0);
    let url = format!("https://bot.example.com:{}/healthz", gateway.port);
    assert_eq!(get(&client(&[fs::read(&cert).unwrap()], gateway.port), &url).unwrap().0, 200);
    assert!(!state.join("account.json").exists(), "the issuer was asked");
    assert_eq!(orders(&gateway, "issued"), 0.0);
}
