//! `gateway.toml` and the environment: as written, then as meant.
//!
//! [`find`] says which file counts, [`load`] reads it. The environment is an argument, so that a
//! test and `voxgate check` see exactly what `voxgate run` would.
//!
//! There is no serde mirror of the file: serde stops at the first error and loses positions on the
//! way, and an operator wants every problem at once, each with its line. So `written` walks the
//! parsed document with typed getters that note what was wrong, and `resolve` (with `services`) is
//! the list of keys, ranges and meanings, each said once.

mod agents;
mod carrier;
mod defaults;
mod document;
mod limits;
mod masked;
mod meant;
mod origin;
mod problem;
mod realtime;
mod resolve;
mod schema;
mod services;
mod tls;
mod traces;
mod values;
mod vendors;
mod written;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use masked::masked;
pub use meant::*;
pub use origin::{Entry, Origin};
pub use problem::{Place, Problem, Problems};
pub use schema::schema;

/// The file that ships with voxgate, and what counts where there is none.
pub const SHIPPED: &str = include_str!("../../gateway.toml");

/// Environment variables by name.
pub type Env = BTreeMap<String, String>;

/// The variables of this process. One that is not Unicode is left out: none of ours would be.
pub fn process_env() -> Env {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// A text from elsewhere; `file:` paths in it are relative to the working folder.
    Text {
        name: String,
        text: String,
    },
    /// [`SHIPPED`].
    Default,
}

/// What the shipped configuration is called in messages.
const SHIPPED_NAME: &str = "built-in gateway.toml";

impl Source {
    /// As it is called in messages.
    pub fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Text { name, .. } => name.clone(),
            Source::Default => SHIPPED_NAME.to_owned(),
        }
    }

    /// What is written there.
    pub fn text(&self) -> Result<Cow<'_, str>, Problems> {
        match self {
            Source::File(path) => {
                let read = document::read(path).map(Cow::Owned);
                read.map_err(|error| Problems::unreadable(&self.name(), &error))
            }
            Source::Text { text, .. } => Ok(Cow::Borrowed(text)),
            Source::Default => Ok(Cow::Borrowed(SHIPPED)),
        }
    }

    /// Where relative paths start.
    fn folder(&self) -> &Path {
        match self {
            Source::File(path) => path.parent().unwrap_or(Path::new("")),
            Source::Text { .. } | Source::Default => Path::new(""),
        }
    }
}

/// Every value that holds, in the order of the keys, and where it comes from. Secrets are masked.
pub fn print(source: &Source, env: &Env) -> Result<Vec<Entry>, Problems> {
    let name = source.name();
    let text = source.text()?;
    resolve::examine(&name, &text, source.folder(), env, |_, doc| origin::entries(doc))
}

/// `--config`, else `VOXGATE_CONFIG`, else `gateway.toml` in the working folder, else the built-in.
pub fn find(cli: Option<&Path>, env: &Env) -> Source {
    find_in(Path::new(""), cli, env)
}

fn find_in(folder: &Path, cli: Option<&Path>, env: &Env) -> Source {
    let named = env.get("VOXGATE_CONFIG").filter(|path| !path.is_empty()).map(Path::new);
    let here = || Some(folder.join("gateway.toml")).filter(|path| path.exists());
    cli.or(named).map(Path::to_owned).or_else(here).map_or(Source::Default, Source::File)
}

/// Reads a configuration: the environment first, then the file, then the defaults.
pub fn load(source: Source, env: &Env) -> Result<Config, Problems> {
    let text = source.text()?;
    resolve::resolve(&source.name(), &text, source.folder(), env)
}

/// Where the gateway that runs by this configuration takes commands. Nothing else in it is looked at: whoever
/// sends one has not what the gateway has in its environment.
pub fn load_admin(source: &Source, env: &Env) -> Result<Admin, Problems> {
    resolve::admin_alone(&source.name(), &source.text()?, source.folder(), env)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;
    use toml::de::DeTable;

    use super::*;

    fn text(text: &str) -> Source {
        Source::Text { name: "gateway.toml".to_owned(), text: text.to_owned() }
    }

    fn env(vars: &[(&str, &str)]) -> Env {
        vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("voxgate-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, text: &[u8]) -> PathBuf {
            std::fs::write(self.0.join(name), text).unwrap();
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_shipped_file_says_what_holds_anyway() {
        assert_eq!(load(Source::Default, &Env::new()), Ok(Config::default()));
        assert_eq!(load(text(""), &Env::new()), Ok(Config::default()));
    }

    /// The tables and keys of the shipped file, with those in comments where `optional`.
    fn shown(optional: bool) -> BTreeSet<(String, String)> {
        let mut table = String::new();
        let mut shown = BTreeSet::new();
        // Who stands in for a service has the keys of that service.
        let stands_in = |part: &&str| part.starts_with("# [[");
        let parts = SHIPPED.split("\n\n").filter(|part| !stands_in(part));
        for line in parts.flat_map(str::lines) {
            let line = if optional { line.trim_start_matches("# ") } else { line };
            if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                table = name.to_owned();
            } else if let Some((key, _)) = line.split_once('=') {
                let key = key.trim();
                if key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                    shown.insert((table.clone(), key.to_owned()));
                }
            }
        }
        shown
    }

    /// The shipped file without the tables in comments, and these tables, no longer in comments.
    fn alternatives() -> (String, Vec<String>) {
        let (mut others, mut tables): (Vec<&str>, Vec<String>) = Default::default();
        let mut inside = false;
        for line in SHIPPED.lines() {
            if line.starts_with("# [") {
                inside = true;
                tables.push(String::new());
            }
            inside &= !line.is_empty();
            match tables.last_mut().filter(|_| inside) {
                Some(table) => *table += &format!("{}\n", line.strip_prefix("# ").unwrap_or(line)),
                None => others.push(line),
            }
        }
        // Who stands in is no alternative.
        tables.retain(|table| !table.starts_with("[["));
        (others.join("\n"), tables)
    }

    #[test]
    fn the_shipped_file_shows_every_key_and_no_other() {
        let root = DeTable::parse(SHIPPED).unwrap();
        let env = Env::new();
        let mut doc = document::Document::new("", SHIPPED, Path::new(""), &env, root.get_ref());
        resolve::config(&mut written::Table::root(&mut doc));
        let tables = ["", "upstreams", "dialogue"];
        let sections = ["stt", "agent", "tts", "bot", "realtime"];
        let known = doc.known().filter(|(table, key)| {
            let is_table = tables[..2].contains(table)
                || *table == tables[2] && sections.contains(key)
                || [("twilio", "transfer"), ("server", "tls"), ("server", "acme")].contains(&(*table, *key));
            // Free names, and a table that is shown in one line.
            let shown_otherwise = *table == "dialogue.realtime" && *key == "functions"
                || *table == "dialogue.realtime.transcription";
            !is_table && !shown_otherwise && *key != "fallback"
        });
        let (_, alternatives) = alternatives();
        let is_alternative = |table: &str, key: &str| {
            let of_table = alternatives.iter().filter(|text| text.starts_with(&format!("[{table}]")));
            let mut lines = of_table.flat_map(|text| text.lines());
            lines.any(|line| line.split_once('=').is_some_and(|(k, _)| k.trim() == key))
        };
        let known: BTreeSet<_> = known.map(|(table, key)| (table.to_owned(), key.to_owned())).collect();
        assert_eq!(shown(true), known);

        let optional = [
            "cert",
            "key",
            "root",
            "token",
            "url",
            "upstream",
            "path",
            "headers",
            "voice",
            "subprotocol",
            "apology_audio",
            "health_check",
        ];
        let of_twilio = [
            "more_auth_tokens",
            "account_sid",
            "api_key_sid",
            "api_key_secret",
            "caller_id",
            "action",
            "status_callback",
        ];
        for (table, key) in known.difference(&shown(false)) {
            assert!(
                optional.contains(&key.as_str())
                    || of_twilio.contains(&key.as_str())
                    || is_alternative(table, key)
                    // A model's are held to the defaults in `realtime`.
                    || table == "dialogue.realtime",
                "{key} in [{table}] has a default and is commented out"
            );
        }
    }

    #[test]
    fn the_examples_in_comments_are_sound_too() {
        let env = env(&[
            ("VOXGATE_ADMIN_TOKEN", "t"),
            ("STT_AUTHORIZATION", "s"),
            ("AGENT_AUTHORIZATION", "a"),
            ("TTS_AUTHORIZATION", "b"),
            ("BOT_AUTHORIZATION", "c"),
            ("OTLP_AUTHORIZATION", "d"),
        ]);
        for not_both in [["# url "].as_slice(), &["# upstream ", "# path "]] {
            let example = |line: &str| {
                let key = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = "));
                let is_key = key.is_some_and(|(key, _)| key.trim().bytes().all(|b| b.is_ascii_lowercase()));
                // These go with another choice than the one that is shown.
                let others = ["# temperature ", "# eagerness "];
                is_key && !not_both.iter().chain(&others).any(|no| line.starts_with(no))
            };
            let (shipped, _) = alternatives();
            let lines = shipped.lines().map(|line| if example(line) { &line[2..] } else { line });
            let all = lines.collect::<Vec<_>>().join("\n").replace("\"echo\" ", "\"dialogue\" ");
            let config = load(text(&all), &env).unwrap();
            let Mode::Dialogue { tts: Tts::Webhook { endpoint, voice, .. }, .. } = config.dialogue.mode
            else {
                panic!("echo")
            };
            assert_eq!(endpoint.path, "/tts");
            assert_eq!(endpoint.headers, [("Authorization".to_owned(), Secret("b".to_owned()))]);
            assert_eq!(voice.as_deref(), Some("alice"));
            assert_eq!(config.admin.token, Some(Secret("t".to_owned())));
        }
    }

    #[test]
    fn who_stands_in_is_shown() {
        let part = SHIPPED.split("\n\n").find(|part| part.starts_with("# [[")).unwrap();
        let part: String = part.lines().map(|line| format!("{}\n", &line[2..])).collect();
        let config =
            load(text(&format!("[dialogue.tts]\nurl = \"http://a/\"\n{part}")), &Env::new()).unwrap();
        assert_eq!(config.dialogue.fallbacks.tts.len(), 1);
    }

    #[test]
    fn the_tables_in_comments_are_sound_and_show_the_defaults() {
        let env = env(&[
            ("OPENAI_API_KEY", "o"),
            ("ELEVENLABS_API_KEY", "e"),
            ("DEEPGRAM_API_KEY", "d"),
            ("AGENT_AUTHORIZATION", "a"),
        ]);
        let dialogue = |table: &str| {
            let mut all = "[dialogue]\nmode = \"dialogue\"\n".to_owned();
            for service in ["stt", "agent", "tts"] {
                let header = format!("[dialogue.{service}]");
                let other = format!("{header}\nurl = \"http://a/\"\n");
                all += if table.starts_with(&header) { table } else { &other };
            }
            match load(text(&all), &env).unwrap_or_else(|problems| panic!("{all}\n{problems}")).dialogue.mode
            {
                Mode::Dialogue { stt, agent, tts } => (stt, agent, tts),
                Mode::Echo | Mode::Relay { .. } | Mode::Realtime(_) => panic!("no dialogue"),
            }
        };
        let (_, tables) = alternatives();
        assert_eq!(tables.len(), 8);
        let examples =
            ["language", "prompt", "temperature", "instructions", "speed", "mip_opt_out", "keyterm"];
        let vosk = ["phrase_list"];
        let elevenlabs = ["language_code", "voice_settings", "optimize_streaming_latency", "enable_logging"];
        let agents = ["headers", "reasoning_effort", "max_tokens", "max_completion_tokens"];
        for table in tables {
            let is_example = |line: &&str| {
                let key = line.split('=').next().unwrap_or_default().trim();
                [&examples[..], &elevenlabs, &agents, &vosk].iter().any(|keys| keys.contains(&key))
            };
            // An app, or a Vosk server, is nowhere unless somebody says where; a vendor is at home.
            let nowhere = ["\"vosk\"", "\"conversation_relay\""].iter().any(|kind| table.contains(kind));
            let needed = if nowhere { "url" } else { "api_key" };
            let keys = ["[", "kind", needed];
            let least = |line: &&str| keys.iter().any(|key| line.starts_with(key));
            let without = |no: &dyn Fn(&&str) -> bool| {
                table.lines().filter(|line| !no(line)).map(|line| format!("{line}\n")).collect::<String>()
            };
            let defaults = dialogue(&without(&|line| !least(line)));
            assert_eq!(dialogue(&without(&is_example)), defaults, "{table}");
            // Two names of one limit.
            let all = without(&|line| line.starts_with("max_tokens"));
            assert_ne!(dialogue(&all), defaults, "{table}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let file = "[server]\nlisten = \"127.0.0.1:1\"\ndeploy_id = \"file\"\n\
                    [turn]\neou_ms = 500\nvad_rms = 300\nbarge_in = true\ndedup_window_sec = 1.5\n";
        let plain = load(text(file), &Env::new()).unwrap();
        assert_eq!(plain.server.listen.to_string(), "127.0.0.1:1");
        assert_eq!(plain.server.deploy_id, "file");
        assert_eq!(plain.turn.dedup_window, Duration::from_millis(1500));
        assert_eq!(
            plain.turn,
            Turn {
                eou: Duration::from_millis(500),
                vad_rms: 300.0,
                dedup_window: Duration::from_millis(1500),
                ..Config::default().turn
            }
        );

        let vars = [
            ("PORT", "2"),
            ("DEPLOY_ID", "env"),
            ("EOU_MS", " 600 "),
            ("EoU_MS", "700"),
            ("VAD_RMS", "400.5"),
            ("BARGE_IN", "Off"),
            ("DEDUP_WINDOW_SEC", "2"),
        ];
        let over = load(text(file), &env(&vars)).unwrap();
        assert_eq!(over.server.listen.to_string(), "127.0.0.1:2", "PORT is the port and no more");
        assert_eq!(over.server.deploy_id, "env");
        assert_eq!(over.turn.eou, Duration::from_millis(600));
        assert_eq!(over.turn.vad_rms.to_string(), "400.5");
        assert!(!over.turn.barge_in);
        assert_eq!(over.turn.dedup_window, Duration::from_secs(2));

        let spelled = load(text(file), &env(&[("EoU_MS", "700"), ("EOU_MS", "")])).unwrap();
        assert_eq!(spelled.turn.eou, Duration::from_millis(700), "empty is not set");
        for (word, meant) in [("1", true), ("yes", true), ("TRUE", true), ("0", false), ("no", false)] {
            assert_eq!(load(text(""), &env(&[("BARGE_IN", word)])).unwrap().turn.barge_in, meant, "{word}");
        }
    }

    #[test]
    fn a_string_may_be_elsewhere() {
        let folder = Folder::new("elsewhere");
        folder.write("token", b"s3cret\r\n");
        let path = folder.write(
            "gateway.toml",
            b"[admin]\ntoken = \"file:token\"\n[server]\ndrain = \"env:DRAIN\"\n\
              [upstreams.app]\nservers = [\"env:APP\"]\n[twilio]\nauth_token = \"file:token\"\n",
        );
        let config = load(Source::File(path.clone()), &env(&[("DRAIN", "2m"), ("APP", "app:80")])).unwrap();
        assert_eq!(config.admin.token, Some(Secret("s3cret".to_owned())));
        assert_eq!(config.server.drain, Duration::from_mins(2));
        assert_eq!(config.app.servers, ["app:80"]);

        let path = path.display();
        let said = load(Source::File(path.to_string().into()), &env(&[("DRAIN", "2"), ("APP", "")]));
        assert_eq!(
            said.unwrap_err().to_string(),
            format!(
                "{path}:4:9: `drain` in [server]: the value of `\"env:DRAIN\"` has no unit; \
                 write a duration from \"0s\" to \"24h\"\n\
                 {path}:6:12: `servers` in [upstreams.app]: `\"env:APP\"` needs APP, which is empty; set APP"
            )
        );
    }

    #[test]
    fn who_sends_a_command_needs_nothing_of_the_gateways_environment() {
        let file = "[admin]\nlisten = \"0.0.0.0:9191\"\ntoken = \"env:TOKEN\"\n[twilio]\nsignature = \"enforce\"\n\
                    [dialogue]\nmode = \"dialogue\"\n[dialogue.stt]\nkind = \"deepgram\"\napi_key = \"env:KEY\"\n";
        let token = env(&[("TOKEN", "t0ken")]);
        assert!(load(text(file), &token).is_err());
        let admin = load_admin(&text(file), &token).unwrap();
        assert_eq!((admin.listen.port(), admin.token), (9191, Some(Secret("t0ken".to_owned()))));
        let without = load_admin(&text(file), &Env::new()).unwrap_err().to_string();
        let needs = "`token` in [admin]: `\"env:TOKEN\"` needs TOKEN, which is not set; set TOKEN";
        assert_eq!(without, format!("gateway.toml:3:9: {needs}"));
        assert_eq!(load_admin(&text(""), &Env::new()).unwrap(), Config::default().admin);
        assert!(load_admin(&text("[admin"), &Env::new()).unwrap_err().to_string().contains("not TOML"));
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let folder = Folder::new("unreadable");
        let binary = folder.write("binary", b"\xff\xfe");
        for (path, why) in [
            (folder.0.join("none.toml"), "No such file or directory (os error 2)"),
            (folder.0.clone(), "Is a directory (os error 21)"),
            (binary, "stream did not contain valid UTF-8"),
            ("/dev/zero".into(), "it is longer than 1048576 bytes"),
        ] {
            let said = load(Source::File(path.clone()), &Env::new()).unwrap_err().to_string();
            let path = path.display();
            assert_eq!(said, format!("{path}: cannot be read: {why}; check --config and VOXGATE_CONFIG"));
        }
    }

    #[test]
    fn the_command_line_counts_before_the_environment_before_what_is_here() {
        let named = env(&[("VOXGATE_CONFIG", "env.toml")]);
        let file = |path: &str| Source::File(path.into());
        assert_eq!(find(Some(Path::new("cli.toml")), &named), file("cli.toml"));
        assert_eq!(find(None, &named), file("env.toml"));
        // Tests run in the root of the crate, where the shipped file is.
        assert_eq!(find(None, &env(&[("VOXGATE_CONFIG", "")])), file("gateway.toml"));
        let folder = Folder::new("find");
        assert_eq!(find_in(&folder.0, None, &Env::new()), Source::Default);
        let path = folder.write("gateway.toml", b"");
        assert_eq!(find_in(&folder.0, None, &Env::new()), Source::File(path));
    }

    /// Pieces of which a document is made that is nearly right.
    fn nearly() -> impl Strategy<Value = String> {
        let keys: Vec<&str> =
            SHIPPED.lines().map(|line| line.trim_start_matches("# ")).filter(|l| l.contains('=')).collect();
        let line = prop_oneof![
            proptest::sample::select(SHIPPED.lines().collect::<Vec<_>>()).prop_map(str::to_owned),
            (
                proptest::sample::select(keys),
                prop_oneof![
                    any::<i64>().prop_map(|n| n.to_string()),
                    any::<f64>().prop_map(|n| format!("{n:?}")),
                    any::<String>().prop_map(|s| format!("{s:?}")),
                    "\"(env:|http://|/|[0-9]{1,25}(h|ms|s))[^\"\\\\]{0,9}\"",
                    Just("[{}, []]".to_owned()),
                    Just("{ a.b = 1979-05-27 }".to_owned()),
                ]
            )
                .prop_map(|(key, value)| format!("{}= {value}", key.split('=').next().unwrap_or(""))),
            "\\[(upstreams|dialogue)\\.[a-z\"\\\\.]{1,9}\\]",
        ];
        proptest::collection::vec(line, 0..30).prop_map(|lines| lines.join("\n"))
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(whatever in any::<String>(), nearly in nearly(), cut in 0..SHIPPED.len()) {
            let cut = SHIPPED.floor_char_boundary(cut);
            let spliced = format!("{}{whatever}{}", &SHIPPED[..cut], &SHIPPED[cut..]);
            for candidate in [whatever, nearly, spliced] {
                if let Err(problems) = load(text(&candidate), &env(&[("EOU_MS", &candidate)])) {
                    prop_assert!(!problems.0.is_empty());
                    for problem in &problems.0 {
                        prop_assert_eq!(problem.to_string().lines().count(), 1);
                        if let Place::Text { span, .. } = &problem.place {
                            prop_assert!(candidate.get(span.clone()).is_some(), "{problem}");
                        }
                    }
                }
            }
        }
    }
}
