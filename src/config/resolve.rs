//! From the configuration as written to the one that is meant: every key, its range, its meaning.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::carrier::carrier;
use super::document::{Document, Refused};
use super::limits::{admin, admin_itself, limits, megabytes, network};
use super::meant::*;
use super::problem::{Place, Problem, Problems};
use super::services::{Upstreams, dialogue, upstream};
use super::written::Table;
use super::{Env, tls, traces, values};

const PATH: &str = "a path such as \"/ws/twilio-media\"";
pub(super) const ADDRESS: &str = "an address such as \"0.0.0.0:8080\"";

/// One syntax error may bring others about; after this many they say nothing new.
const MOST_SYNTAX_ERRORS: usize = 5;

pub(super) fn resolve(file: &str, text: &str, folder: &Path, env: &Env) -> Result<Config, Problems> {
    examine(file, text, folder, env, |config, _| config)
}

/// The same, for who wants to know what was asked for on the way.
pub(super) fn examine<T>(
    file: &str,
    text: &str,
    folder: &Path,
    env: &Env,
    look: impl FnOnce(Config, &Document<'_>) -> T,
) -> Result<T, Problems> {
    let root = parse(file, text)?;
    let mut doc = Document::new(file, text, folder, env, root.get_ref());
    let config = config(&mut Table::root(&mut doc));
    let seen = look(config, &doc);
    match doc.finish() {
        problems if problems.is_empty() => Ok(seen),
        problems => Err(Problems::sorted(problems)),
    }
}

/// The admin listener alone: what else is there is not looked at, and needs nothing of this environment.
pub(super) fn admin_alone(file: &str, text: &str, folder: &Path, env: &Env) -> Result<Admin, Problems> {
    let root = parse(file, text)?;
    let mut doc = Document::new(file, text, folder, env, root.get_ref());
    let admin = Table::root(&mut doc).section("admin", |t| admin_itself(t, Config::default().admin));
    match doc.noted() {
        problems if problems.is_empty() => Ok(admin),
        problems => Err(Problems::sorted(problems)),
    }
}

fn parse<'a>(file: &str, text: &'a str) -> Result<Spanned<DeTable<'a>>, Problems> {
    let (root, errors) = DeTable::parse_recoverable(text);
    // What could be read is a guess, and would bring problems that are not there.
    if errors.is_empty() { Ok(root) } else { Err(Problems::sorted(syntax(file, text, errors))) }
}

fn syntax(file: &str, text: &str, errors: Vec<toml::de::Error>) -> Vec<Problem> {
    let problem = |error: toml::de::Error| Problem {
        place: Place::in_text(file, text, error.span().unwrap_or(0..0)),
        text: None,
        why: format!("not TOML: {}", error.message().replace('\n', " ")),
        help: format!("{}; nothing else was looked at", cure(error.message())),
    };
    errors.into_iter().take(MOST_SYNTAX_ERRORS).map(problem).collect()
}

/// What to do about an error of the parser.
fn cure(message: &str) -> &'static str {
    let cures = [
        ("duplicate key", "keep one of the two"),
        ("must be quoted", "put the value into quotes"),
        ("with no value", "write it as key = value"),
        ("basic string", "end the string with its quote"),
        ("literal string", "end the string with its quote"),
    ];
    let known = cures.iter().find(|(part, _)| message.contains(part));
    known.map_or("compare it with the gateway.toml that ships", |(_, cure)| cure)
}

pub(super) fn config(root: &mut Table<'_, '_>) -> Config {
    let default = Config::default();
    let server = root.section("server", |t| server(t, default.server));
    let admin = root.section("admin", |t| admin(t, default.admin, &server));
    let log = root.section("log", |t| log(t, default.log));
    let twilio = root.section("twilio", |t| twilio(t, default.twilio, &server));
    let turn = root.section("turn", |t| turn(t, default.turn));
    let playout = root.section("playout", |t| Playout {
        lead: t.millis("lead_ms", 0..=2000).unwrap_or(default.playout.lead),
    });
    let mut upstreams = Upstreams::from([("app".to_owned(), default.app)]);
    root.sections("upstreams", |name, t| {
        let read = upstream(t, name, upstreams.remove(name));
        upstreams.insert(name.to_owned(), read);
    });
    let dialogue = root.section("dialogue", |t| dialogue(t, default.dialogue, &upstreams, turn.barge_in));
    let recording = root.section("recording", |t| recording(t, default.recording));
    let traces = root.section("traces", traces::traces);
    let limits = root.section("limits", |t| limits(t, default.limits));
    let app = upstreams.remove("app").unwrap_or(Config::default().app);
    Config { server, admin, log, twilio, turn, playout, dialogue, app, recording, traces, limits }
}

fn server(t: &mut Table<'_, '_>, default: Server) -> Server {
    let mut listen = t.parsed("listen", ADDRESS, |s| Ok(values::listen(s)?)).unwrap_or(default.listen);
    if let Some(port) = t.variable("PORT", "a port from 0 to 65535", |s| {
        s.trim().parse().map_err(|_| Refused::from("is not a port"))
    }) {
        listen.set_port(port);
        t.replaced("listen", format!("{:?}", listen.to_string()), "PORT");
    }
    let tls = t.section("tls", tls::files);
    let acme = t.section("acme", |t| tls::acme(t, listen, tls.is_some()));
    Server {
        listen,
        public_url: t
            .hidden("public_url", "a URL such as \"https://bot.example.com\"", |s| Ok(values::public_url(s)?))
            .unwrap_or(default.public_url),
        deploy_id: t
            .parsed("deploy_id", "a word such as \"2026-11-22-a\"", |s| Ok(values::header_word(s)?))
            .unwrap_or(default.deploy_id),
        drain: t.duration("drain", secs(0, 24 * 3600)).unwrap_or(default.drain),
        drain_goodbye: t.text("drain_goodbye").unwrap_or(default.drain_goodbye),
        threads: t.count("threads", 0..=1024).unwrap_or(default.threads),
        tls: acme.as_ref().map(Acme::files).or(tls),
        acme,
        trusted_proxies: t
            .list("trusted_proxies", "\"10.0.0.0/8\"", network)
            .unwrap_or(default.trusted_proxies),
        proxy_protocol: t.flag("proxy_protocol").unwrap_or(default.proxy_protocol),
    }
}

/// Nobody can listen on both.
pub(super) fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}

fn log(t: &mut Table<'_, '_>, default: Log) -> Log {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    Log {
        format: t.choice("format", &formats, &[]).unwrap_or(default.format),
        transcripts: t.flag("transcripts").unwrap_or(default.transcripts),
    }
}

fn twilio(t: &mut Table<'_, '_>, default: Twilio, server: &Server) -> Twilio {
    let modes = [("forward", Twiml::Forward), ("serve", Twiml::Serve)];
    let twiml = t.choice("twiml", &modes, &[]).unwrap_or(default.twiml);
    let checks = [("off", Strictness::Off), ("warn", Strictness::Warn), ("enforce", Strictness::Enforce)];
    let token = t.choice("token", &checks, &[]);
    let resume = t.flag("resume").unwrap_or(default.resume);
    let signature = t.choice("signature", &checks, &[]).unwrap_or(default.signature);
    if twiml == Twiml::Serve && !server.public_url.as_ref().is_some_and(|url| url.starts_with("https://")) {
        let why = "`twiml` in [twilio] is \"serve\", and `public_url` in [server] is no https:// URL";
        let help = "write it as Twilio sees this gateway: public_url = \"https://bot.example.com\"";
        t.complain("twiml", why.to_owned(), help.to_owned());
    }
    if twiml == Twiml::Forward && token == Some(Strictness::Enforce) {
        let why = "`token` in [twilio] is \"enforce\", and the TwiML of the app bears no tokens";
        t.complain("token", why.to_owned(), "write twiml = \"serve\", or token = \"off\"".to_owned());
    }
    let auth_token = t.secret_in("auth_token", "TWILIO_AUTH_TOKEN");
    let more_auth_tokens = t.secret_list("more_auth_tokens", "\"env:OLD_AUTH_TOKEN\"").unwrap_or_default();
    if signature != Strictness::Off {
        let needs = [
            (auth_token.is_none(), "`auth_token`", "set TWILIO_AUTH_TOKEN"),
            (
                server.public_url.is_none(),
                "`public_url` in [server]",
                "write this gateway's URL as Twilio has it",
            ),
        ];
        for (_, missing, help) in needs.into_iter().filter(|(is_missing, ..)| *is_missing) {
            let why = format!("`signature` in [twilio] cannot be checked without {missing}");
            t.complain("signature", why, help.to_owned());
        }
    }
    let api = carrier(t, default.api, server.public_url.as_deref(), auth_token.as_ref());
    let needs = [
        (
            twiml != Twiml::Serve,
            "the app's TwiML says what comes of a stream that breaks",
            "write twiml = \"serve\"",
        ),
        (api.credentials.is_none(), "only Twilio's REST API ends a call for good", "set TWILIO_AUTH_TOKEN"),
        (
            api.hangup != Hangup::Rest,
            "a call whose stream is closed would come back",
            "write hangup = \"rest\"",
        ),
    ];
    for (_, why, help) in needs.into_iter().filter(|(is_so, ..)| resume && *is_so) {
        t.complain("resume", format!("`resume` in [twilio] is true, and {why}"), help.to_owned());
    }
    let mut twiml_of = |key, default| {
        let wanted = "TwiML such as \"<Response><Say>…</Say></Response>\", or \"\"";
        t.parsed(key, wanted, |s| Ok(values::twiml(s)?)).unwrap_or(default)
    };
    let fallback_twiml = twiml_of("fallback_twiml", default.fallback_twiml);
    let busy_twiml = twiml_of("busy_twiml", default.busy_twiml);
    let mut path = |key, default| t.parsed(key, PATH, |s| Ok(values::path(s)?)).unwrap_or(default);
    let twilio = Twilio {
        path: path("path", default.path),
        stream_status: path("stream_status", default.stream_status),
        incoming_call: path("incoming_call", default.incoming_call),
        stream_ended: path("stream_ended", default.stream_ended),
        subprotocol: t
            .parsed("subprotocol", "a word such as \"audio.twilio.com\"", |s| Ok(values::header_word(s)?))
            .unwrap_or(default.subprotocol),
        ping_interval: t.duration("ping_interval", secs(5, 15)).unwrap_or(default.ping_interval),
        twiml,
        resume,
        twiml_fix: t.flag("twiml_fix").unwrap_or(default.twiml_fix),
        fallback_twiml,
        busy_twiml,
        token: token.unwrap_or(default.token),
        auth_token,
        signature,
        more_auth_tokens,
        api,
    };
    // The gateway answers these two itself, so nothing else may be there. The other two may be one.
    for (key, path, own) in [
        ("stream_status", &twilio.stream_status, &twilio.path),
        ("incoming_call", &twilio.incoming_call, &twilio.path),
        ("stream_ended", &twilio.stream_ended, &twilio.path),
        ("incoming_call", &twilio.incoming_call, &twilio.stream_status),
        ("stream_ended", &twilio.stream_ended, &twilio.stream_status),
    ] {
        if path == own {
            let other = if own == &twilio.path { "path" } else { "stream_status" };
            let why =
                format!("`{key}` in [twilio] is the same as `{other}`, which the gateway answers itself");
            t.complain(key, why, "give each its own path".to_owned());
        }
    }
    twilio
}

/// A word or a few.
fn some_words(text: &str) -> Result<String, Refused> {
    match text.chars().any(char::is_alphanumeric) {
        true => Ok(text.to_owned()),
        false => Err(Refused::from("has no letters")),
    }
}

fn turn(t: &mut Table<'_, '_>, default: Turn) -> Turn {
    #[expect(clippy::cast_possible_truncation, reason = "in range, and a threshold needs no more")]
    let vad_rms = t.number("vad_rms", 1.0..=32_000.0).map(|rms| rms as f32);
    let off_or = |after: Duration| (!after.is_zero()).then_some(after);
    let idle_prompt = t.duration("idle_prompt", secs(0, 3600)).map_or(default.idle_prompt, off_or);
    let idle_hangup = t.duration("idle_hangup", secs(0, 3600)).map_or(default.idle_hangup, off_or);
    if idle_hangup.zip(idle_prompt).is_some_and(|(hangup, prompt)| hangup <= prompt) {
        let why = "`idle_hangup` in [turn] is no longer than `idle_prompt`: nobody would be asked".to_owned();
        t.complain("idle_hangup", why, "make it longer, or one of them \"0s\"".to_owned());
    }
    Turn {
        idle_prompt,
        idle_prompt_text: t.text("idle_prompt_text").unwrap_or(default.idle_prompt_text),
        idle_hangup,
        idle_hangup_text: t.text("idle_hangup_text").unwrap_or(default.idle_hangup_text),
        early_agent: t.flag("early_agent").unwrap_or(default.early_agent),
        adaptive_eou: t.flag("adaptive_eou").unwrap_or(default.adaptive_eou),
        vad: t.choice("vad", &[("neural", Vad::Neural), ("rms", Vad::Rms)], &[]).unwrap_or(default.vad),
        vad_rms: vad_rms.unwrap_or(default.vad_rms),
        eou: t.millis("eou_ms", 100..=5000).unwrap_or(default.eou),
        barge_in: t.flag("barge_in").unwrap_or(default.barge_in),
        languages: t
            .list("languages", "\"en\"", |code| {
                let known = LANGUAGES.contains(&code).then(|| code.to_owned());
                known.ok_or_else(|| Refused::from("is not one of en, he, es, de, fr, ru"))
            })
            .unwrap_or(default.languages),
        backchannels: t.list("backchannels", "\"uh huh\"", some_words).unwrap_or(default.backchannels),
        stop_words: t.list("stop_words", "\"stop\"", some_words).unwrap_or(default.stop_words),
        dedup_window: t
            .number("dedup_window_sec", 0.0..=600.0)
            .map_or(default.dedup_window, Duration::from_secs_f64),
        greeting: t.text("greeting").unwrap_or(default.greeting),
        max_utterance: t.duration("max_utterance", secs(2, 300)).unwrap_or(default.max_utterance),
        dtmf_timeout: t.duration("dtmf_timeout", millis(100, 60_000)).unwrap_or(default.dtmf_timeout),
        dtmf_num_digits: t.count("dtmf_num_digits", 1..=64).unwrap_or(default.dtmf_num_digits),
        dtmf_finish_on_key: t
            .parsed("dtmf_finish_on_key", "one of 0-9, *, #, A-D, or \"\" for none", |s| Ok(values::key(s)?))
            .unwrap_or(default.dtmf_finish_on_key),
    }
}

fn recording(t: &mut Table<'_, '_>, default: Recording) -> Recording {
    Recording {
        folder: t.folder("folder").unwrap_or(default.folder),
        keep: t.duration("keep", secs(60, 366 * 24 * 3600)).unwrap_or(default.keep),
        most_bytes: t.whole("max_mb", 1..=100_000_000).map_or(default.most_bytes, megabytes),
    }
}

pub(super) fn secs(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(from)..=Duration::from_secs(to)
}

pub(super) fn millis(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::config) fn check(text: &str, vars: &[(&str, &str)]) -> Result<Config, String> {
        let env = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        resolve("gateway.toml", text, Path::new(""), &env).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_problem_says_where_and_why_and_what_to_do() {
        for (text, said) in [
            // Keys.
            ("[turn]\neou_msec = 1", "2:1: unknown key `eou_msec` in [turn]; did you mean `eou_ms`?"),
            ("[log]\ncolour = 1", "2:1: unknown key `colour` in [log]; known here: format, transcripts"),
            ("[log]\neou_ms = 1", "2:1: unknown key `eou_ms` in [log]; it belongs in [turn]"),
            ("eou_ms = 1", "1:1: unknown key `eou_ms` outside any table; it belongs in [turn]"),
            ("[trun]\neou_ms = 1", "1:2: unknown table [trun]; did you mean [turn]?"),
            ("[dialogue.sst]", "1:11: unknown table [dialogue.sst]; did you mean [dialogue.stt]?"),
            (
                "[billing]",
                "1:2: unknown table [billing]; this level has admin, dialogue, limits, log, playout, recording, \
                 server, traces, turn, twilio, upstreams",
            ),
            ("log = 5", "1:7: `log`: the value is a whole number; write a table, [log]"),
            ("[[turn]]", "1:1: `turn`: the value is a list; write a table, [turn]"),
            (
                "upstreams = { app = 1 }",
                "1:21: `app` in [upstreams]: the value is a whole number; write a table, [upstreams.app]",
            ),
            // Numbers.
            (
                "[turn]\n  eou_ms = \"450\"",
                "2:12: `eou_ms` in [turn]: `\"450\"` is a string; \
                 write a whole number of milliseconds from 100 to 5000",
            ),
            (
                "[turn]\neou_ms = 99",
                "2:10: `eou_ms` in [turn]: `99` is too small; write a whole number of milliseconds from 100 to 5000",
            ),
            (
                "turn.eou_ms = 0x1fff",
                "1:15: `eou_ms` in [turn]: `0x1fff` is too large; \
                 write a whole number of milliseconds from 100 to 5000",
            ),
            (
                "[turn]\nvad_rms = true",
                "2:11: `vad_rms` in [turn]: `true` is true or false; write a number from 1 to 32000",
            ),
            (
                "[turn]\ndedup_window_sec = nan",
                "2:20: `dedup_window_sec` in [turn]: `nan` is not a number; write a number from 0 to 600",
            ),
            (
                "[limits]\nmax_calls = 1.5",
                "2:13: `max_calls` in [limits]: `1.5` is a number with a point; \
                 write a whole number from 1 to 1000000",
            ),
            (
                "[limits]\nmax_calls = 99999999999999999999",
                "2:13: `max_calls` in [limits]: `99999999999999999999` is not a whole number; \
                 write a whole number from 1 to 1000000",
            ),
            (
                "[turn]\nbarge_in = 1",
                "2:12: `barge_in` in [turn]: `1` is a whole number; write true or false",
            ),
            // Durations.
            (
                "[twilio]\nping_interval = \"20s\"",
                "2:17: `ping_interval` in [twilio]: `\"20s\"` is too large; write a duration from \"5s\" to \"15s\"",
            ),
            (
                "[turn]\nmax_utterance = \"30\"",
                "2:17: `max_utterance` in [turn]: `\"30\"` has no unit; write a duration from \"2s\" to \"5m\"",
            ),
            (
                "[server]\ndrain = 15",
                "2:9: `drain` in [server]: `15` is a whole number; write a duration from \"0s\" to \"24h\"",
            ),
            // Words.
            (
                "[log]\nformat = \"xml\"",
                "2:10: `format` in [log]: `\"xml\"` is not one of its words; write \"text\" or \"json\"",
            ),
            (
                "[turn]\nlanguages = [\"en\", \"xx\"]",
                "2:20: `languages` in [turn]: `\"xx\"` is not one of en, he, es, de, fr, ru; write \"en\"",
            ),
            (
                "[turn]\nstop_words = [\"...\"]",
                "2:15: `stop_words` in [turn]: `\"...\"` has no letters; write \"stop\"",
            ),
            (
                "[turn]\nidle_prompt = \"9s\"\nidle_hangup = \"9s\"",
                "3:15: `idle_hangup` in [turn] is no longer than `idle_prompt`: nobody would be asked; \
                 make it longer, or one of them \"0s\"",
            ),
            (
                "[turn]\nvad = \"silero\"",
                "2:7: `vad` in [turn]: `\"silero\"` is not one of its words; write \"neural\" or \"rms\"",
            ),
            (
                "[twilio]\nsignature = \"enforce\"",
                "2:13: `signature` in [twilio] cannot be checked without `auth_token`; set TWILIO_AUTH_TOKEN\n\
                 gateway.toml:2:13: `signature` in [twilio] cannot be checked without `public_url` in [server]; \
                 write this gateway's URL as Twilio has it",
            ),
            (
                "[twilio]\ntwiml = \"serve\"",
                "2:9: `twiml` in [twilio] is \"serve\", and `public_url` in [server] is no https:// URL; \
                 write it as Twilio sees this gateway: public_url = \"https://bot.example.com\"",
            ),
            (
                "[twilio]\ntoken = \"enforce\"",
                "2:9: `token` in [twilio] is \"enforce\", and the TwiML of the app bears no tokens; \
                 write twiml = \"serve\", or token = \"off\"",
            ),
            (
                "[twilio]\nfallback_twiml = \"<Response><Say>Sorry</Response>\"",
                "2:18: `fallback_twiml` in [twilio]: `\"<Response><Say>Sorry</Response>\"` is not sound XML; \
                 write TwiML such as \"<Response><Say>…</Say></Response>\", or \"\"",
            ),
            (
                "[dialogue]\nmode = \"speech\"",
                "2:8: `mode` in [dialogue]: `\"speech\"` is not one of its words; \
                 write \"echo\" or \"dialogue\" or \"relay\" or \"realtime\"",
            ),
            // Addresses and paths.
            (
                "[server]\nlisten = \":8080\"",
                "2:10: `listen` in [server]: `\":8080\"` is not an IP address with a port; \
                 write an address such as \"0.0.0.0:8080\"",
            ),
            (
                "[admin]\nlisten = \"127.0.0.1:8080\"",
                "2:10: `listen` in [admin]: 127.0.0.1:8080 meets 0.0.0.0:8080, where [server] listens; \
                 choose another port",
            ),
            (
                "[server]\npublic_url = \"https://bot.example.com/voice\"",
                "2:14: `public_url` in [server]: the value has a path; \
                 write a URL such as \"https://bot.example.com\"",
            ),
            (
                "[server]\ndeploy_id = \"\"",
                "2:13: `deploy_id` in [server]: `\"\"` is empty; write a word such as \"2026-11-22-a\"",
            ),
            (
                "[twilio]\npath = \"/ws?x=1\"",
                "2:8: `path` in [twilio]: the value has a query or a fragment; \
                 write a path such as \"/ws/twilio-media\"",
            ),
            (
                "[twilio]\nstream_ended = \"/ws/twilio-media\"",
                "2:16: `stream_ended` in [twilio] is the same as `path`, which the gateway answers itself; \
                 give each its own path",
            ),
            (
                "[server.tls]\nkey = \"key.pem\"",
                "2:7: `key` in [server.tls] needs `cert` beside it; give the file of the certificate",
            ),
            // References.
            (
                "[admin]\ntoken = \"env:TOKEN\"",
                "2:9: `token` in [admin]: `\"env:TOKEN\"` needs TOKEN, which is not set; set TOKEN",
            ),
            (
                "[admin]\ntoken = \"file:/no/such\"",
                "2:9: `token` in [admin]: `\"file:/no/such\"` needs /no/such, which cannot be read: \
                 No such file or directory (os error 2); a path is relative to the folder of the configuration",
            ),
            (
                "[admin]\ntoken = \"file:/dev/zero\"",
                "2:9: `token` in [admin]: `\"file:/dev/zero\"` needs /dev/zero, which cannot be read: \
                 it is longer than 1048576 bytes; a path is relative to the folder of the configuration",
            ),
            (
                "[twilio]\nauth_token = \"env:TOKEN\"",
                "2:14: `auth_token` in [twilio]: `\"env:TOKEN\"` needs TOKEN, which is not set; set TOKEN",
            ),
            // Not even TOML.
            (
                "[turn]\neou_ms = \n",
                "2:10: not TOML: string values must be quoted, expected literal string; \
                 put the value into quotes; nothing else was looked at",
            ),
            (
                "[turn]\n[log]\nformat = \"text\"\nformat = \"text\"",
                "4:1: not TOML: duplicate key; keep one of the two; nothing else was looked at",
            ),
        ] {
            assert_eq!(check(text, &[]), Err(format!("gateway.toml:{said}")), "{text}");
        }
    }

    #[test]
    fn the_environment_is_held_to_the_same_ranges() {
        for (name, value, said) in [
            (
                "EOU_MS",
                "fast",
                "`fast` is not a whole number; write a whole number of milliseconds from 100 to 5000",
            ),
            ("EoU_MS", "50", "`50` is too small; write a whole number of milliseconds from 100 to 5000"),
            ("BARGE_IN", "maybe", "`maybe` is neither true nor false; write true or false"),
            ("VAD_RMS", "0.5", "`0.5` is too small; write a number from 1 to 32000"),
            ("DEDUP_WINDOW_SEC", "601", "`601` is too large; write a number from 0 to 600"),
            ("PORT", "http", "`http` is not a port; write a port from 0 to 65535"),
            ("PORT", "65536", "`65536` is not a port; write a port from 0 to 65535"),
            (
                "DEPLOY_ID",
                "build 7\n",
                "`build 7…` has spaces or letters outside ASCII; write a word such as \"2026-11-22-a\"",
            ),
        ] {
            let said = format!("{name} (environment): {said}");
            assert_eq!(check("", &[(name, value)]), Err(said), "{name}");
        }
    }

    #[test]
    fn a_port_from_the_environment_may_meet_the_admin_port() {
        let meets = "`listen` in [admin]: 127.0.0.1:9090 meets 0.0.0.0:9090, where [server] listens; \
                     choose another port";
        let port = [("PORT", "9090")];
        assert_eq!(check("", &port), Err(format!("gateway.toml: {meets}")));
        assert_eq!(check("[admin]", &port), Err(format!("gateway.toml:1:2: {meets}")));
        assert!(check("[admin]\nlisten = \"127.0.0.1:9091\"", &port).is_ok());
        assert!(
            check("[admin]\nlisten = \"127.0.0.2:9090\"\n[server]\nlisten = \"127.0.0.1:1\"", &port).is_ok()
        );
    }

    #[test]
    fn every_problem_is_told_in_the_order_of_the_file() {
        let text = "[twilio]\npath = \"ws\"\nport = 1\n[turn]\nvad = 1\n[server]\nlisten = \"x\"\n";
        let said = check(text, &[("EOU_MS", "1"), ("PORT", "1")]).unwrap_err();
        let places: Vec<&str> = said.lines().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(
            places,
            [
                "gateway.toml:2:8",
                "gateway.toml:3:1",
                "gateway.toml:5:7",
                "gateway.toml:7:10",
                "EOU_MS (environment)"
            ]
        );
    }

    #[test]
    fn no_secret_shows_wherever_it_went_wrong() {
        let secret = "hunter2";
        for text in [
            "[admin]\ntoken = [\"hunter2\"]",
            "[admin]\ntoken = { a = \"hunter2\" }",
            "[admin]\ntokn = \"hunter2\"",
            "[admin]\ntoken = hunter2",
            "[admin]\ntoken = \"hunter2",
            "[server]\npublic_url = \"https://me:hunter2@bot.example.com\"",
            "[dialogue.stt]\nurl = \"http://me:hunter2@app/\"",
            "[dialogue.stt]\nurl = \"app/?key=hunter2\"",
            "[dialogue.stt]\nheaders = { Authorization = \"hunter2\\n\" }",
            "[dialogue.stt]\nheaders = { Authorization = [\"hunter2\"] }",
            "[dialogue.stt]\nheaders = \"hunter2\"",
            "[dialogue.stt]\nheaders = [\"hunter2\"]",
            "[upstreams.app]\nservers = [\"http://me:hunter2@app:5000\"]",
            "[server]\nlisten = \"env:HUNTER\"",
        ] {
            let env = Env::from([("HUNTER".to_owned(), secret.to_owned())]);
            let problems = resolve("gateway.toml", text, Path::new(""), &env).unwrap_err();
            assert!(!format!("{problems} {problems:?}").contains(secret), "{problems}");
        }
        let config = check("[admin]\ntoken = \"hunter2\"", &[]).unwrap();
        assert_eq!(config.admin.token, Some(Secret(secret.to_owned())));
        assert!(!format!("{config:?}").contains(secret));
    }
}
