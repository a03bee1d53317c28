//! The program under test. What it takes from its environment is what a test gives it, whatever is set where
//! the tests are run: a token of Twilio's would have it ask Twilio itself.

use std::process::Command;

use voxgate::config::{self, Env, Source};
use voxgate::edge::UPGRADE_VARIABLES;

/// What voxgate and what starts it read there; `EoU_MS` is `EOU_MS`, as one platform spells it.
const INHERITED: [&str; 14] = [
    "PORT",
    "DEPLOY_ID",
    "EOU_MS",
    "EoU_MS",
    "BARGE_IN",
    "VAD_RMS",
    "DEDUP_WINDOW_SEC",
    "TWILIO_AUTH_TOKEN",
    "VOXGATE_CONFIG",
    "RUST_LOG",
    "NOTIFY_SOCKET",
    "VOXGATE_UPGRADE_SOCKET",
    "VOXGATE_UPGRADE_LISTENERS",
    "VOXGATE_UPGRADE_PREDECESSOR",
];

/// Where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";

/// The program, with nothing of ours in its environment.
pub fn voxgate() -> Command {
    by_itself(Command::new(env!("CARGO_BIN_EXE_voxgate")))
}

/// A command without the variables that voxgate reads.
pub fn by_itself(mut command: Command) -> Command {
    for name in INHERITED {
        command.env_remove(name);
    }
    command
}

/// A configuration whose REST API is not Twilio's own.
pub fn far_from_twilio(config: &str) -> String {
    let url = format!("api_url = \"{NOBODY}\"\n");
    match config.split_once("[twilio]\n") {
        _ if config.contains("api_url") => config.to_owned(),
        Some((before, keys)) => format!("{before}[twilio]\n{url}{keys}"),
        None => format!("{config}\n[twilio]\n{url}"),
    }
}

#[test]
fn nothing_is_left_of_what_a_developer_has_set() {
    let readme = std::fs::read_to_string(super::project().join("README.md")).unwrap();
    let (_, settings) = readme.split_once("The environment wins over it: ").unwrap();
    let (names, _) = settings.split_once(". ").unwrap();
    let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
    assert!(names.contains(&"PORT") && names.contains(&"RUST_LOG"), "{names:?}");
    let command = voxgate();
    for name in names.into_iter().chain(["EoU_MS"]).chain(UPGRADE_VARIABLES) {
        let mut set = command.get_envs();
        assert!(set.any(|(key, value)| key == name && value.is_none()), "{name} is inherited");
    }
}

#[test]
fn no_gateway_of_a_test_asks_twilio_itself() {
    let keys = "[twilio]\nhangup = \"close\"\n[turn]\nvad = \"rms\"\n";
    for config in ["", keys, "[twilio]\napi_url = \"http://127.0.0.1:1\"\n"] {
        let (name, text) = ("gateway.toml".to_owned(), far_from_twilio(config));
        let read = config::load(Source::Text { name, text }, &Env::new()).unwrap();
        assert!(read.twilio.api.url.starts_with("http://127.0.0.1:"), "{config}");
    }
}
