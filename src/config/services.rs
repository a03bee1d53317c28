//! The app and the services of a dialogue: where they are, how long they may take.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
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
        breaker: BreakerLimits {
            failures: t
                .count("breaker_failures", 0..=1000)
                .map_or(default.breaker.failures, |n| u32::try_from(n).ok().and_then(NonZeroU32::new)),
            cooldown: t
                .duration("breaker_cooldown", millis(100, 3_600_000))
                .unwrap_or(default.breaker.cooldown),
        },
        health: HealthCheck {
            path: t.hidden("health_check", "a path such as \"/healthz\"", |s| Ok(values::path_and_query(s)?)),
            interval: t.duration("health_interval", millis(0, 3_600_000)).unwrap_or(default.health.interval),
        },
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
    let mut fallbacks = default.fallbacks;
    let mut speech_cache = default.speech_cache;
    let after = |t: &mut Table<'_, '_>, default: Duration| {
        let after = t.duration("fallback_after", millis(100, 30_000)).unwrap_or(default);
        if t.has("fallback") && after >= reply_deadline {
            let why = format!("`fallback_after` in {} is not before `reply_deadline`", t.label());
            let help = "the caller hears an apology before the fallback is asked: make it shorter".to_owned();
            t.complain("fallback_after", why, help);
        }
        after
    };
    let stt = t.section("stt", |t| {
        let stt = read_stt(t, &place("stt"));
        fallbacks.stt_after = after(t, fallbacks.stt_after);
        fallbacks.stt = t.tables("fallback", |t| {
            let other = read_stt(t, &place("stt"));
            if let (Some(first), Some(other)) = (&stt, &other)
                && first.is_streaming() != other.is_streaming()
            {
                let (hears, then) = match first.is_streaming() {
                    true => ("the call as it is said", "write kind = \"deepgram\" or \"vosk\""),
                    false => ("one utterance after the other", "write kind = \"webhook\" or \"openai\""),
                };
                let why = format!("{} cannot stand in for a recogniser that hears {hears}", t.label());
                t.complain("kind", why, then.to_owned());
            }
            other
        });
        stt
    });
    let agent = t.section("agent", |t| {
        let agent = read_agent(t, &place("agent"));
        fallbacks.agent_after = after(t, fallbacks.agent_after);
        fallbacks.agent = t.tables("fallback", |t| {
            let other = read_agent(t, &place("agent"));
            if matches!(other, Some(Agent::ConversationRelay(_))) {
                let why =
                    format!("{} cannot stand in: such an app is in every call from its start", t.label());
                t.complain("kind", why, "write kind = \"webhook\" or \"openai\"".to_owned());
            }
            other
        });
        agent
    });
    let tts = t.section("tts", |t| {
        let tts = read_tts(t, &place("tts"));
        fallbacks.tts_after = after(t, fallbacks.tts_after);
        fallbacks.tts = t.tables("fallback", |t| read_tts(t, &place("tts")));
        speech_cache = t.count("cache_mib", 0..=4096).map_or(speech_cache, |mib| mib * 1024 * 1024);
        tts
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
    Dialogue { mode, apology, apology_audio, filler, filler_after, reply_deadline, fallbacks, speech_cache }
}

fn read_stt(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Stt> {
    let webhook = |t: &mut Table<'_, '_>| {
        let formats = [("wav", SttFormat::Wav), ("mulaw", SttFormat::Mulaw)];
        let format = t.choice("format", &formats, &[]).unwrap_or(SttFormat::Wav);
        endpoint(t, place).map(|endpoint| Stt::Webhook { endpoint, format })
    };
    let kinds: [(_, Reader<'_, '_, _>); 4] = [
        ("webhook", &webhook),
        ("openai", &|t| vendors::openai_stt(t, place)),
        ("deepgram", &|t| vendors::deepgram_stt(t, place)),
        ("vosk", &|t| vendors::vosk(t, place)),
    ];
    t.kinds(&kinds, &[]).flatten()
}

fn read_agent(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Agent> {
    let kinds: [(_, Reader<'_, '_, _>); 3] = [
        ("webhook", &|t| endpoint(t, place).map(|endpoint| Agent::Webhook { endpoint })),
        ("openai", &|t| vendors::openai_agent(t, place)),
        ("conversation_relay", &|t| agents::relay(t, place)),
    ];
    t.kinds(&kinds, &[]).flatten()
}

fn read_tts(t: &mut Table<'_, '_>, place: &Place<'_>) -> Option<Tts> {
    let webhook = |t: &mut Table<'_, '_>| {
        let voice = t.text("voice");
        let pcm_rate = t.whole("pcm_rate", 8000..=48_000).and_then(|rate| u32::try_from(rate).ok());
        let raw = pcm_rate.map_or_else(RawAudio::default, |pcm_rate| RawAudio { pcm_rate });
        endpoint(t, place).map(|endpoint| Tts::Webhook { endpoint, voice, raw })
    };
    let kinds: [(_, Reader<'_, '_, _>); 4] = [
        ("webhook", &webhook),
        ("openai", &|t| vendors::openai_tts(t, place)),
        ("elevenlabs", &|t| vendors::elevenlabs(t, place)),
        ("deepgram", &|t| vendors::deepgram(t, place)),
    ];
    t.kinds(&kinds, &[]).flatten()
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
    let headers = t.headers();
    let table = t.label();
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
            // Somebody else's, as likely as not: who wants it looked at says so in [upstreams].
            upstream.health.interval = Duration::ZERO;
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

    /// A dialogue with more to it, which begins on line 6.
    fn dialogue_with(more: &str) -> Result<Dialogue, String> {
        let text = format!(
            "[dialogue]\nmode = \"dialogue\"\nagent.url = \"http://a/\"\n\
             [upstreams.b]\nservers = [\"b:1\"]\n{more}"
        );
        check(&text, &[("OPENAI_API_KEY", "k"), ("DEEPGRAM_API_KEY", "d")]).map(|config| config.dialogue)
    }

    #[test]
    fn who_stands_in_is_a_service_like_the_first() {
        let dialogue = dialogue_with(
            r#"
            [dialogue.stt]
            kind = "deepgram"
            api_key = "env:DEEPGRAM_API_KEY"
            [[dialogue.stt.fallback]]
            kind = "vosk"
            url = "ws://v:2700"
            [dialogue.tts]
            url = "http://a/"
            fallback_after = "900ms"
            cache_mib = 3
            [[dialogue.tts.fallback]]
            kind = "openai"
            api_key = "env:OPENAI_API_KEY"
            [[dialogue.tts.fallback]]
            upstream = "b"
            path = "/tts"
            "#,
        )
        .unwrap();
        let Fallbacks { stt, stt_after, agent, tts, tts_after, .. } = dialogue.fallbacks;
        assert!(matches!(&*stt, [Stt::Vosk(_)]), "{stt:?}");
        let names = tts.iter().map(|tts| tts.endpoint().upstream.name.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["api.openai.com:443", "b"]);
        assert_eq!(
            (stt_after, agent, tts_after),
            (Duration::from_secs(2), vec![], Duration::from_millis(900))
        );
        assert_eq!(dialogue.speech_cache, 3 << 20);
    }

    #[test]
    fn who_cannot_stand_in_is_told() {
        let tts = "[dialogue.tts]\nurl = \"http://a/\"\n";
        let stt = "[dialogue.stt]\nurl = \"http://a\"\n";
        let streams = "[dialogue.stt]\nkind = \"vosk\"\nurl = \"ws://v\"\n";
        for (more, said) in [
            (
                format!("{tts}{streams}[[dialogue.stt.fallback]]\nkind = \"webhook\"\nurl = \"http://a/\""),
                "12:8: [dialogue.stt.fallback] cannot stand in for a recogniser that hears the call as it is said; \
                 write kind = \"deepgram\" or \"vosk\"",
            ),
            (
                format!("{tts}{stt}[[dialogue.stt.fallback]]\nkind = \"vosk\"\nurl = \"ws://v\""),
                "11:8: [dialogue.stt.fallback] cannot stand in for a recogniser that hears one utterance after \
                 the other; write kind = \"webhook\" or \"openai\"",
            ),
            (
                format!("{stt}{tts}[[dialogue.tts.fallback]]\nurl = \"http://a\"\nvocie = \"x\""),
                "12:1: unknown key `vocie` in [dialogue.tts.fallback]; did you mean `voice`?",
            ),
            (
                format!("{stt}{tts}fallback = \"x\""),
                "10:12: `fallback` in [dialogue.tts]: `\"x\"` is a string; \
                 write tables, each with the header [[dialogue.tts.fallback]]",
            ),
            (
                format!("{stt}{tts}fallback_after = \"6s\"\n[[dialogue.tts.fallback]]\nurl = \"http://a\""),
                "10:18: `fallback_after` in [dialogue.tts] is not before `reply_deadline`; \
                 the caller hears an apology before the fallback is asked: make it shorter",
            ),
            (
                format!(
                    "[upstreams.c]\nservers = [\"c:1\"]\nbreaker_failures = -1\nhealth_check = \"x\"\n{stt}{tts}"
                ),
                "8:20: `breaker_failures` in [upstreams.c]: `-1` is too small; write a whole number from 0 to 1000\n\
                 gateway.toml:9:16: `health_check` in [upstreams.c]: the value does not start with /; \
                 write a path such as \"/healthz\"",
            ),
        ] {
            assert_eq!(dialogue_with(&more).map(drop), Err(format!("gateway.toml:{said}")), "{more}");
        }
        let relay = "[dialogue]\nagent.url = \"http://a/\"\n[[dialogue.agent.fallback]]\n\
                     kind = \"conversation_relay\"\nurl = \"ws://v\"";
        let said = "gateway.toml:4:8: [dialogue.agent.fallback] cannot stand in: such an app is in every call from \
                    its start; write kind = \"webhook\" or \"openai\"";
        assert_eq!(check(relay, &[]).map(drop), Err(said.to_owned()));
        // One that is nowhere is told of at its own place.
        let nowhere =
            dialogue_with(&format!("{stt}{tts}[[dialogue.tts.fallback]]\nvoice = \"x\"")).unwrap_err();
        assert!(
            nowhere.contains(":10:") && nowhere.contains("has neither `url` nor `upstream`"),
            "{nowhere}"
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
