//! The app and the services of a dialogue: where they are, how long they may take.

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::Refused;
use super::meant::*;
use super::problem::nearest;
use super::resolve::{millis, secs};
use super::values;
use super::written::{Reader, Table};
use super::{agents, realtime, vendors};

const URL: &str = "a URL such as \"http://127.0.0.1:9001/stt\"";
const WS_URL: &str = "a URL such as \"ws://127.0.0.1:2700\"";

/// The pools of `[upstreams]`, by name.
pub(super) type Upstreams = BTreeMap<String, Upstream>;

pub(super) fn upstream(t: &mut Table<'_, '_>, name: &str, default: Option<Upstream>) -> Upstream {
    let default = default.unwrap_or_else(|| Upstream::new(name, Vec::new()));
    let servers = t.list("servers", "\"host:port\"", |s| Ok(values::server(s)?));
    if servers.as_ref().map_or(default.servers.is_empty() && !t.has("servers"), Vec::is_empty) {
        t.complain(
            "servers",
            format!("`servers` in [upstreams.{}] names no server", name.escape_debug()),
            "write one or more, such as [\"127.0.0.1:5000\"]".to_owned(),
        );
    }
    Upstream {
        name: default.name,
        servers: servers.unwrap_or(default.servers),
        tls: t.flag("tls").unwrap_or(default.tls),
        connect_timeout: t.duration("connect_timeout", millis(10, 60_000)).unwrap_or(default.connect_timeout),
        first_byte_timeout: t
            .duration("first_byte_timeout", millis(10, 3_600_000))
            .unwrap_or(default.first_byte_timeout),
        stall_timeout: t.duration("stall_timeout", millis(10, 3_600_000)).unwrap_or(default.stall_timeout),
        idle_timeout: t.duration("idle_timeout", secs(0, 3600)).unwrap_or(default.idle_timeout),
        max_in_flight: t.count("max_in_flight", 1..=1_000_000).unwrap_or(default.max_in_flight),
    }
}

pub(super) fn dialogue(
    t: &mut Table<'_, '_>,
    default: Dialogue,
    upstreams: &Upstreams,
    barge_in: bool,
) -> Dialogue {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        Echo,
        Dialogue,
        Relay,
        Realtime,
    }
    let words = [
        ("echo", Word::Echo),
        ("dialogue", Word::Dialogue),
        ("relay", Word::Relay),
        ("realtime", Word::Realtime),
    ];
    let word = t.choice("mode", &words, &[]).unwrap_or(Word::Echo);
    let on = word == Word::Dialogue;
    let relays = word == Word::Relay;
    let models = word == Word::Realtime;
    let apology = t.text("apology").unwrap_or(default.apology);
    let filler = t.text("filler").unwrap_or(default.filler);
    let filler_after = t.duration("filler_after", millis(200, 30_000)).unwrap_or(default.filler_after);
    let apology_audio = t.path("apology_audio");
    let reply_deadline = t.duration("reply_deadline", secs(1, 60)).unwrap_or(default.reply_deadline);
    for service in ["stt", "agent", "tts"] {
        if on && !t.has(service) {
            t.complain(
                "mode",
                format!("`mode` in [dialogue] is \"dialogue\", and there is no [dialogue.{service}]"),
                "add it, with a `url` or an `upstream`".to_owned(),
            );
        }
    }
    if relays && !t.has("bot") {
        t.complain(
            "mode",
            "`mode` in [dialogue] is \"relay\", and there is no [dialogue.bot]".to_owned(),
            "add it, with the `url` of your bot's WebSocket".to_owned(),
        );
    }
    let bot = t.section("bot", |t| {
        let place = Place { service: "bot", needed: relays, upstreams, home: None, websocket: true };
        let subprotocol = t.text("subprotocol");
        endpoint(t, &place).map(|bot| Mode::Relay { bot, subprotocol })
    });
    let place = |name| Place { service: name, needed: on, upstreams, home: None, websocket: false };
    let stt = t.section("stt", |t| {
        let place = place("stt");
        let webhook = |t: &mut Table<'_, '_>| {
            let formats = [("wav", SttFormat::Wav), ("mulaw", SttFormat::Mulaw)];
            let format = t.choice("format", &formats, &[]).unwrap_or(SttFormat::Wav);
            endpoint(t, &place).map(|endpoint| Stt::Webhook { endpoint, format })
        };
        let kinds: [(_, Reader<'_, '_, _>); 4] = [
            ("webhook", &webhook),
            ("openai", &|t| vendors::openai_stt(t, &place)),
            ("deepgram", &|t| vendors::deepgram_stt(t, &place)),
            ("vosk", &|t| vendors::vosk(t, &place)),
        ];
        t.kinds(&kinds, &[]).flatten()
    });
    let agent = t.section("agent", |t| {
        let place = place("agent");
        let kinds: [(_, Reader<'_, '_, _>); 3] = [
            ("webhook", &|t| endpoint(t, &place).map(|endpoint| Agent::Webhook { endpoint })),
            ("openai", &|t| vendors::openai_agent(t, &place)),
            ("conversation_relay", &|t| agents::relay(t, &place)),
        ];
        t.kinds(&kinds, &[]).flatten()
    });
    let tts = t.section("tts", |t| {
        let place = place("tts");
        let webhook = |t: &mut Table<'_, '_>| {
            let voice = t.text("voice");
            let pcm_rate = t.whole("pcm_rate", 8000..=48_000).and_then(|rate| u32::try_from(rate).ok());
            let raw = pcm_rate.map_or_else(RawAudio::default, |pcm_rate| RawAudio { pcm_rate });
            endpoint(t, &place).map(|endpoint| Tts::Webhook { endpoint, voice, raw })
        };
        let kinds: [(_, Reader<'_, '_, _>); 4] = [
            ("webhook", &webhook),
            ("openai", &|t| vendors::openai_tts(t, &place)),
            ("elevenlabs", &|t| vendors::elevenlabs(t, &place)),
            ("deepgram", &|t| vendors::deepgram(t, &place)),
        ];
        t.kinds(&kinds, &[]).flatten()
    });
    if models && !t.has("realtime") {
        t.complain(
            "mode",
            "`mode` in [dialogue] is \"realtime\", and there is no [dialogue.realtime]".to_owned(),
            "add it, with an `api_key`".to_owned(),
        );
    }
    let app = match &agent {
        Some(Agent::Webhook { endpoint }) => Some(endpoint.clone()),
        Some(Agent::OpenAi(_) | Agent::ConversationRelay(_)) | None => None,
    };
    let model = t.section("realtime", |t| {
        let place = Place { service: "realtime", needed: models, upstreams, home: None, websocket: true };
        realtime::realtime(t, &place, app, barge_in)
    });
    let mode = match (on, stt, agent, tts) {
        (true, Some(stt), Some(agent), Some(tts)) => Mode::Dialogue { stt, agent, tts },
        (false, ..) if relays => bot.unwrap_or(Mode::Echo),
        (false, ..) if models => model.map_or(Mode::Echo, Mode::Realtime),
        // Either echo is meant, or a problem was noted and nobody will see this.
        _ => Mode::Echo,
    };
    Dialogue { mode, apology, apology_audio, filler, filler_after, reply_deadline }
}

/// Which service is read.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) service: &'static str,
    /// Calls use it: without it they have no dialogue.
    pub(super) needed: bool,
    pub(super) upstreams: &'p Upstreams,
    /// The URL that a vendor's API has where nobody says otherwise.
    pub(super) home: Option<&'static str>,
    /// It speaks WebSocket: its URL may say so.
    pub(super) websocket: bool,
}

/// An unused connection to a vendor is kept this long: a new TLS handshake for every sentence would
/// be heard. One that the vendor has closed meanwhile costs nothing (see `upstream/http`).
const VENDORS_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

pub(super) fn endpoint(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Endpoint> {
    let Place { service, needed, upstreams, home, websocket } = *place;
    let url = t.hidden("url", if websocket { WS_URL } else { URL }, |s| {
        Ok(if websocket { values::ws_url(s)? } else { values::url(s)? })
    });
    let pool = t.parsed("upstream", "the NAME of an [upstreams.NAME]", |name| {
        upstreams.get(name).cloned().ok_or_else(|| {
            let near = nearest(name, upstreams.keys().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add the table, with its `servers`".to_owned(),
            };
            Refused::because("is not in [upstreams]", help)
        })
    });
    let path = t.hidden("path", "a path such as \"/stt\"", |s| Ok(values::path_and_query(s)?));
    let wanted = "the name of a header, and what it says";
    let headers = t.secrets("headers", wanted, |name, value| {
        http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is for a name that no header can have")?;
        http::HeaderValue::from_str(value).map_err(|_| "cannot be sent in a header")?;
        Ok(())
    });
    let table = format!("[dialogue.{service}]");
    let has = |t: &mut Table<'_, '_>| (t.has("url"), t.has("upstream"), t.has("path"));
    match has(t) {
        (true, true, _) => t.complain(
            "upstream",
            format!("{table} has both `url` and `upstream`"),
            "keep one of them".to_owned(),
        ),
        (true, false, true) => t.complain(
            "path",
            format!("`path` in {table} goes with `upstream`, and there is a `url`"),
            "put it into the `url`".to_owned(),
        ),
        (false, true, false) if home.is_none() => t.complain(
            "upstream",
            format!("{table} has an `upstream` and no `path`"),
            format!("add one, such as path = \"/{service}\""),
        ),
        (false, false, true) if home.is_some() => t.complain(
            "path",
            format!("`path` in {table} goes with `upstream`, and there is none"),
            "add the `upstream`, or write a `url`".to_owned(),
        ),
        (false, false, _) if needed && home.is_none() && t.is_written() => t.complain(
            "",
            format!("{table} has neither `url` nor `upstream`, and `mode` is \"dialogue\""),
            format!(
                "add one, such as url = \"{}://127.0.0.1:9001/{service}\"",
                if websocket { "ws" } else { "http" }
            ),
        ),
        _ => {}
    }
    let at_home =
        home.filter(|_| !t.has("url") && !t.has("upstream")).and_then(|home| values::url(home).ok());
    let (upstream, path) = match (url.or(at_home), pool) {
        (Some(url), _) => {
            let mut upstream =
                Upstream { tls: url.tls, ..Upstream::new(&url.server, vec![url.server.clone()]) };
            if home.is_some() && url.tls {
                upstream.idle_timeout = VENDORS_IDLE_TIMEOUT;
            }
            (upstream, url.path_and_query)
        }
        (None, Some(pool)) => (pool, path.or_else(|| home.map(|_| "/".to_owned()))?),
        (None, None) => return None,
    };
    Some(Endpoint { upstream, path, headers })
}

#[cfg(test)]
mod tests {
    use super::super::resolve::tests::check;
    use super::*;

    #[test]
    fn a_service_that_cannot_be_reached_is_a_problem() {
        for (text, said) in [
            // Upstreams.
            (
                "[upstreams.app]\nservers = [\"a:1\", \"http://b:2\"]",
                "2:19: `servers` in [upstreams.app]: `\"http://b:2\"` is a URL; write \"host:port\"",
            ),
            (
                "[upstreams.app]\nservers = \"a:1\"",
                "2:11: `servers` in [upstreams.app]: `\"a:1\"` is a string; write a list: [\"host:port\", …]",
            ),
            (
                "[upstreams.app]\nservers = []",
                "2:11: `servers` in [upstreams.app] names no server; \
                 write one or more, such as [\"127.0.0.1:5000\"]",
            ),
            (
                "[upstreams.speech]\ntls = true",
                "1:12: `servers` in [upstreams.speech] names no server; \
                 write one or more, such as [\"127.0.0.1:5000\"]",
            ),
            // Services, which are looked at in every mode.
            (
                "[dialogue.tts]\nupstream = \"ap\"\npath = \"/tts\"",
                "2:12: `upstream` in [dialogue.tts]: `\"ap\"` is not in [upstreams]; did you mean \"app\"?",
            ),
            (
                "[dialogue.tts]\nupstream = \"speech\"\npath = \"/tts\"",
                "2:12: `upstream` in [dialogue.tts]: `\"speech\"` is not in [upstreams]; \
                 add the table, with its `servers`",
            ),
            (
                "[dialogue.stt]\nurl = \"http://a/\"\nupstream = \"app\"\npath = \"/\"",
                "3:12: [dialogue.stt] has both `url` and `upstream`; keep one of them",
            ),
            (
                "[dialogue.stt]\nurl = \"http://a/\"\npath = \"/\"",
                "3:8: `path` in [dialogue.stt] goes with `upstream`, and there is a `url`; put it into the `url`",
            ),
            (
                "[dialogue.stt]\nupstream = \"app\"",
                "2:12: [dialogue.stt] has an `upstream` and no `path`; add one, such as path = \"/stt\"",
            ),
            (
                "[dialogue.agent]\nurl = \"app:5000\"",
                "2:7: `url` in [dialogue.agent]: the value does not start with http:// or https://; \
                 write a URL such as \"http://127.0.0.1:9001/stt\"",
            ),
            (
                "[dialogue.stt.headers]\n\"a b\" = \"x\"",
                "2:9: `a b` in [dialogue.stt.headers]: the value is for a name that no header can have; \
                 write the name of a header, and what it says",
            ),
        ] {
            assert_eq!(check(text, &[]), Err(format!("gateway.toml:{said}")), "{text}");
        }
    }

    #[test]
    fn a_dialogue_needs_its_three_services() {
        let said = check("[dialogue]\nmode = \"dialogue\"\nstt.url = \"http://a:1/x\"\n[dialogue.tts]", &[]);
        assert_eq!(
            said.unwrap_err(),
            "gateway.toml:2:8: `mode` in [dialogue] is \"dialogue\", and there is no [dialogue.agent]; \
             add it, with a `url` or an `upstream`\n\
             gateway.toml:4:11: [dialogue.tts] has neither `url` nor `upstream`, and `mode` is \"dialogue\"; \
             add one, such as url = \"http://127.0.0.1:9001/tts\""
        );
    }

    #[test]
    fn services_are_named_by_url_or_by_upstream() {
        let config = check(
            r#"
            [dialogue]
            mode = "dialogue"
            [dialogue.stt]
            url = "https://speech.example.com/v1?lang=en"
            format = "mulaw"
            headers = { Authorization = "env:STT", X-Id = "7" }
            [dialogue.agent]
            upstream = "app"
            path = "/agent"
            [dialogue.tts]
            upstream = "voices"
            path = "/tts"
            voice = "alice"
            pcm_rate = 24000
            [upstreams.voices]
            servers = ["a:1", "b:2"]
            stall_timeout = "3s"
            "#,
            &[("STT", "Bearer x")],
        )
        .unwrap();
        let Mode::Dialogue { stt, agent, tts } = config.dialogue.mode else { panic!("echo") };
        let Stt::Webhook { endpoint: stt, format } = stt else { panic!("{stt:?}") };
        let Agent::Webhook { endpoint: agent } = agent else { panic!("{agent:?}") };
        let Tts::Webhook { endpoint: tts, voice, raw } = tts else { panic!("{tts:?}") };

        assert_eq!(stt.upstream.name, "speech.example.com:443");
        assert_eq!(stt.url_of(&stt.upstream.servers[0]), "https://speech.example.com:443/v1?lang=en");
        assert_eq!(format, SttFormat::Mulaw);
        let header = |name: &str, value: &str| (name.to_owned(), Secret(value.to_owned()));
        assert_eq!(stt.headers, [header("Authorization", "Bearer x"), header("X-Id", "7")]);

        assert_eq!(agent.url_of("127.0.0.1:5000"), "http://127.0.0.1:5000/agent");
        assert_eq!(agent.upstream, Config::default().app);

        assert_eq!(tts.upstream.servers, ["a:1", "b:2"]);
        assert_eq!(tts.upstream.stall_timeout, Duration::from_secs(3));
        assert_eq!((voice.as_deref(), raw.pcm_rate), (Some("alice"), 24_000));
    }
}
