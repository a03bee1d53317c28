//! `voxgate check --probe`: each service is asked once, and what is wrong has an owner and a name.

use crate::world::{Fake, Server, app, expired, free_port, stt, tone, tts, voxgate};

/// Whether all was well, and the rows of the table by the name of the service.
struct Probed {
    well: bool,
    text: String,
}

impl Probed {
    fn of(config: &str, env: &[(&str, &str)]) -> Probed {
        let folder =
            std::env::temp_dir().join(format!("voxgate-probe-{}-{}", std::process::id(), free_port()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("gateway.toml");
        std::fs::write(&file, config).unwrap();
        let mut voxgate = voxgate();
        let voxgate = voxgate.args(["check", "--probe", "--config"]).arg(&file).envs(env.iter().copied());
        let output = voxgate.output().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        Probed { well: output.status.success(), text: out + &err }
    }

    #[track_caller]
    fn row(&self, service: &str) -> &str {
        let mut rows = self.text.lines().filter(|row| row.starts_with(&format!("{service}  ")));
        rows.next().unwrap_or_else(|| panic!("no row of {service} in\n{}", self.text))
    }

    #[track_caller]
    fn says(&self, service: &str, words: &[&str]) {
        let row = self.row(service);
        words.iter().for_each(|words| assert!(row.contains(words), "{words:?} is not in {row}"));
    }
}

#[test]
fn each_service_says_what_it_answers() {
    let agent = Fake::start(|_, _, reply| {
        reply.whole(200, "application/json", b"{\"reply\":\"Pong.\",\"action\":\"hangup\"}")
    });
    let probed = Probed::of(
        &format!(
            "[dialogue]\nmode = \"dialogue\"\n[dialogue.stt]\nurl = {:?}\n\
             [dialogue.agent]\nurl = {:?}\nheaders = {{ X-Key = \"hunter2\" }}\n\
             [dialogue.tts]\nurl = {:?}\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]",
            stt().url("/stt"),
            agent.url("/agent"),
            tts().url("/tts"),
            app().port
        ),
        &[],
    );
    assert!(probed.well, "{}", probed.text);
    probed.says("app", &["ok", "took a connection"]);
    probed.says("stt", &["ok", "understood "]);
    probed.says("agent", &["ok", " ms  ", "said \"Pong.\" and would hang up"]);
    probed.says("tts", &["ok", "spoke ", " of wav pcm16 "]);
    assert!(!probed.text.contains("hunter2"), "{}", probed.text);
    let [asked] = &agent.asked()[..] else { panic!("once") };
    let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!((&body["probe"], &body["text"]), (&true.into(), &"ping".into()));
}

#[test]
fn what_is_wrong_is_told_with_its_owner() {
    let misbehaving = Server::start("misbehaving");
    let voice =
        Fake::start(|_, _, reply| reply.whole(401, "application/json", b"{\"detail\":\"bad key hunter2\"}"));
    let spoken = Fake::start(|_, _, reply| reply.whole(200, "audio/basic", &tone(500)));
    let nobody = free_port();
    let probed = Probed::of(
        &format!(
            "[dialogue]\nmode = \"dialogue\"\n[dialogue.stt]\nurl = {:?}\n\
             [dialogue.agent]\nkind = \"conversation_relay\"\nurl = \"ws://127.0.0.1:{nobody}/ws\"\n\
             [dialogue.tts]\nkind = \"elevenlabs\"\napi_key = \"hunter2\"\nurl = {:?}\n\
             [[dialogue.tts.fallback]]\nurl = {:?}\n[upstreams.app]\nservers = [\"127.0.0.1:{nobody}\"]",
            misbehaving.url("/html"),
            voice.url("/v1"),
            spoken.url("/tts"),
        ),
        &[],
    );
    assert!(!probed.well, "{}", probed.text);
    probed.says("app", &["connect", "the service: 127.0.0.1:", "is it running?"]);
    probed.says("stt", &["protocol", "the service: POST http://127.0.0.1:", "text/html"]);
    probed.says("agent", &["connect", "the vendor: ws://127.0.0.1:", "connection refused: is it running?"]);
    probed.says("tts", &["http_4xx", "your config: api_key: ", "bad key ***"]);
    probed.says("tts.fallback 1", &["ok", "spoke 500 ms of raw μ-law 8000 Hz"]);
    assert!(!probed.text.contains("hunter2"), "{}", probed.text);
}

#[test]
fn a_certificate_that_has_expired_is_told_of_by_every_kind() {
    let trusts = [("SSL_CERT_FILE", &*expired::authority())];
    let upstream = format!(
        "[upstreams.old]\nservers = [\"127.0.0.1:{}\"]\ntls = true\nconnect_timeout = \"12s\"\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n",
        expired::server(),
        app().port
    );
    let at = "upstream = \"old\"\npath = \"/x\"\n";
    let openai = format!("kind = \"openai\"\nmodel = \"m\"\n{at}");
    let webhooks = format!(
        "[dialogue]\nmode = \"dialogue\"\n\
         [dialogue.stt]\n{at}[[dialogue.stt.fallback]]\n{openai}\
         [dialogue.agent]\n{at}[[dialogue.agent.fallback]]\n{openai}\
         [dialogue.tts]\n{at}[[dialogue.tts.fallback]]\n{openai}voice = \"v\"\n\
         [[dialogue.tts.fallback]]\nkind = \"elevenlabs\"\n{at}[[dialogue.tts.fallback]]\nkind = \"deepgram\"\n{at}"
    );
    let sockets = format!(
        "[dialogue]\nmode = \"dialogue\"\n\
         [dialogue.stt]\nkind = \"deepgram\"\n{at}[[dialogue.stt.fallback]]\nkind = \"vosk\"\n{at}\
         [dialogue.agent]\nkind = \"conversation_relay\"\n{at}[dialogue.tts]\n{at}"
    );
    let relay = format!("[dialogue]\nmode = \"relay\"\n[dialogue.bot]\n{at}");
    for (config, rows) in [(webhooks, 8), (sockets, 4), (relay, 1)] {
        let probed = Probed::of(&format!("{config}{upstream}"), &trusts);
        assert!(!probed.well);
        let told: Vec<&str> = probed.text.lines().filter(|row| row.contains("has expired")).collect();
        assert_eq!(told.len(), rows, "{}", probed.text);
        for row in told {
            assert!(
                row.contains("connect")
                    && ["the vendor: ", "the service: ", "your bot: "]
                        .iter()
                        .any(|owner| row.contains(owner)),
                "{row}"
            );
        }
    }
}
