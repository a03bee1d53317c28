//! Tests: every kind of service with every fault, over real sockets. Whatever is wrong, there is one
//! failure, soon, which says whose it is; nothing is piled up; and who stands in is heard instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::channel;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::fake::{Fake, dialogue, hum, nowhere};
use super::tests::ids;
use super::{Bot, Services};
use crate::call::{Failure, FailureKind, Input, Question};
use crate::config::{
    Agent, DeepgramStt, DeepgramTts, Dialogue, ElevenLabsFormat, ElevenLabsTts, Endpoint, Mode, RelayAgent,
    Stt, Tts, VoiceSettings, VoskStt,
};

const SOON: Duration = Duration::from_secs(1);
/// The longest of all patience, that with a streaming recogniser, on a busy machine.
const LONG: Duration = Duration::from_secs(20);
/// A flood that is not stopped is a hundred times as much before a test ends.
const MOST_TAKEN: usize = 32 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    WebhookStt,
    OpenAiStt,
    DeepgramStt,
    Vosk,
    WebhookAgent,
    OpenAiAgent,
    ConversationRelay,
    Bot,
    WebhookTts,
    OpenAiTts,
    ElevenLabs,
    DeepgramTts,
}

use Kind as K;

const KINDS: [Kind; 12] = [
    K::WebhookStt,
    K::OpenAiStt,
    K::DeepgramStt,
    K::Vosk,
    K::WebhookAgent,
    K::OpenAiAgent,
    K::ConversationRelay,
    K::Bot,
    K::WebhookTts,
    K::OpenAiTts,
    K::ElevenLabs,
    K::DeepgramTts,
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Refuse,
    HangBeforeHead,
    HangMidStream,
    Reset,
    Garbage,
    Trickle,
    Flood,
    WrongType,
    /// Asked by TLS, which it does not speak. (Certificates: `tests/it/certificates.rs`.)
    NoTls,
}

const FAULTS: [Fault; 9] = [
    Fault::Refuse,
    Fault::HangBeforeHead,
    Fault::HangMidStream,
    Fault::Reset,
    Fault::Garbage,
    Fault::Trickle,
    Fault::Flood,
    Fault::WrongType,
    Fault::NoTls,
];

impl Kind {
    fn is_socket(self) -> bool {
        matches!(self, K::DeepgramStt | K::Vosk | K::ConversationRelay | K::Bot)
    }

    fn speaks(self) -> bool {
        matches!(self, K::WebhookTts | K::OpenAiTts | K::ElevenLabs | K::DeepgramTts)
    }

    /// How an answer begins of which nothing is of use yet.
    fn begins(self) -> (&'static str, &'static [u8]) {
        match self {
            K::WebhookStt | K::OpenAiStt => ("application/json", b"{\"text\":\"aa"),
            K::WebhookAgent => ("application/x-ndjson", b"{\"delta\":\"aa"),
            K::OpenAiAgent => ("text/event-stream", b"data: {\"choices\":[{\"aa"),
            // A message of 4096 bytes.
            K::DeepgramStt | K::Vosk | K::ConversationRelay | K::Bot => ("", &[0x81, 126, 0x10, 0]),
            K::WebhookTts | K::OpenAiTts | K::ElevenLabs | K::DeepgramTts => {
                ("audio/wav", b"RIFF\xf0\xff\xff\x7fWAVEfmt \x10\0\0\0")
            }
        }
    }
}

/// A server with this fault, and how much it could send.
async fn server(kind: Kind, fault: Fault) -> (String, Arc<AtomicUsize>) {
    let sent = Arc::<AtomicUsize>::default();
    if fault == Fault::Refuse {
        return (nowhere(), sent);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, counted) = (listener.local_addr().unwrap().to_string(), Arc::clone(&sent));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(misbehave(stream, kind, fault, Arc::clone(&counted)));
        }
    });
    (address, sent)
}

async fn misbehave(mut stream: TcpStream, kind: Kind, fault: Fault, sent: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while fault != Fault::NoTls && !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    }
    let (content_type, begun) = kind.begins();
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().filter_map(|line| line.split_once(": "));
    let mut key = key.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, key)| key);
    let good = match key.next() {
        Some(key) => format!(
            "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        ),
        None => {
            format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: 1073741824\r\n\r\n")
        }
    };
    match fault {
        Fault::Refuse | Fault::HangBeforeHead => {}
        Fault::HangMidStream => {
            let _ = stream.write_all(&[good.as_bytes(), begun].concat()).await;
        }
        Fault::Reset => {
            stream.set_zero_linger().unwrap();
            return;
        }
        Fault::Garbage | Fault::NoTls => {
            let _ = stream.write_all(&[0xf5; 4096]).await;
            return;
        }
        Fault::Trickle => {
            let mut rest = [good.as_bytes(), begun].concat().into_iter();
            while stream.write_all(&[rest.next().unwrap_or(b'a')]).await.is_ok() {
                // The head comes at once: it is the body that takes for ever.
                if rest.len() < begun.len() {
                    sleep(SOON / 50).await;
                }
            }
        }
        Fault::Flood => {
            // A message of a gibibyte, an error without end, or a word.
            let begun: &[u8] = match kind {
                kind if kind.is_socket() => &[0x81, 127, 0, 0, 0, 0, 0x40, 0, 0, 0],
                kind if kind.speaks() => b"{\"error\":\"",
                _ => begun,
            };
            let flood = [b'a'; 1 << 16];
            let _ = stream.write_all(&[good.as_bytes(), begun].concat()).await;
            while stream.write_all(&flood).await.is_ok() {
                sent.fetch_add(flood.len(), Ordering::Relaxed);
            }
        }
        Fault::WrongType => {
            let page =
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\n<h1>Login</h1>";
            let _ = stream.write_all(page.as_bytes()).await;
        }
    }
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
}

/// A dialogue with this kind at this server; the others of its services are there as well.
fn dialogue_with(kind: Kind, server: &str, tls: bool) -> Dialogue {
    let mut dialogue = dialogue(&[server.to_owned()]);
    let Mode::Dialogue { stt, agent, tts } = &mut dialogue.mode else { panic!() };
    let mut upstream = stt.endpoint().upstream.clone();
    upstream.name = "troubled".to_owned();
    (upstream.connect_timeout, upstream.first_byte_timeout) = (SOON, SOON);
    (upstream.stall_timeout, upstream.tls) = (SOON, tls);
    let endpoint =
        |path: &str| Endpoint { upstream: upstream.clone(), path: path.to_owned(), headers: Vec::new() };
    let (api_key, language) = (None, None);
    match kind {
        K::WebhookStt => {
            *stt = Stt::Webhook { endpoint: endpoint("/stt"), format: crate::config::SttFormat::Wav }
        }
        K::OpenAiStt => *stt = super::fake::openai_stt(endpoint("/v1")),
        K::DeepgramStt => {
            *stt = Stt::Deepgram(DeepgramStt {
                endpoint: endpoint("/v1"),
                api_key,
                model: "nova-3".to_owned(),
                language,
                endpointing: None,
                utterance_end: None,
                smart_format: false,
                punctuate: true,
                keyterm: Vec::new(),
            });
        }
        K::Vosk => *stt = Stt::Vosk(VoskStt { endpoint: endpoint("/"), phrase_list: Vec::new() }),
        K::WebhookAgent => *agent = Agent::Webhook { endpoint: endpoint("/agent") },
        K::OpenAiAgent => *agent = super::fake::openai_agent(endpoint("/v1")),
        K::ConversationRelay | K::Bot => {
            let language = "en-US".to_owned();
            *agent = Agent::ConversationRelay(RelayAgent { endpoint: endpoint("/ws"), language });
        }
        K::WebhookTts => {
            let raw = crate::config::RawAudio { pcm_rate: 8000 };
            *tts = Tts::Webhook { endpoint: endpoint("/tts"), voice: None, raw };
        }
        K::OpenAiTts => *tts = super::fake::openai_tts(endpoint("/v1")),
        K::ElevenLabs => {
            *tts = Tts::ElevenLabs(ElevenLabsTts {
                endpoint: endpoint("/v1"),
                api_key,
                voice_id: "v".to_owned(),
                model_id: "m".to_owned(),
                output_format: ElevenLabsFormat::Ulaw8000,
                language_code: None,
                voice_settings: VoiceSettings::default(),
                optimize_streaming_latency: None,
                enable_logging: None,
            });
        }
        K::DeepgramTts => {
            let (endpoint, model) = (endpoint("/v1"), "aura-2-thalia-en".to_owned());
            *tts = Tts::Deepgram(DeepgramTts { endpoint, api_key, model, speed: None, mip_opt_out: None });
        }
    }
    dialogue
}

/// What a call is told by a service of this kind, up to the end of the answer.
async fn inputs(kind: Kind, services: &Services) -> Vec<Input<'static>> {
    let (to, inputs) = channel(8);
    let call = services.for_call(ids(), to.clone());
    let (mut recogniser, words) = services.recognise(&ids(), 8).unzip();
    let mut inputs = words.unwrap_or(inputs);
    let job = match kind {
        K::DeepgramStt | K::Vosk => {
            let recogniser = recogniser.as_mut().expect("a recogniser");
            hum(8000).chunks(160).for_each(|frame| recogniser.hear(frame));
            recogniser.finalize(1);
            None
        }
        K::WebhookStt | K::OpenAiStt => Some(tokio::spawn(call.transcribe(1, hum(1600)))),
        K::WebhookAgent | K::OpenAiAgent | K::ConversationRelay | K::Bot => {
            let text = "hello".to_owned();
            let question = Question { turn: 1, text, deadline_ms: 1, ..Question::default() };
            Some(tokio::spawn(call.ask(question)))
        }
        K::WebhookTts | K::OpenAiTts | K::ElevenLabs | K::DeepgramTts => {
            Some(tokio::spawn(call.say(1, "Hello.".to_owned())))
        }
    };
    let mut told = Vec::new();
    let ends = |input: &Input<'_>| {
        let ends = [
            matches!(input, Input::Transcript { .. } | Input::Failed { .. }),
            matches!(input, Input::ReplyEnd { .. } | Input::SpeechEnd { .. }),
        ];
        ends.contains(&true)
    };
    let all = async {
        while !told.last().is_some_and(ends) {
            told.push(*inputs.recv().await.expect("an input"));
        }
    };
    let within = timeout(LONG, all).await;
    assert!(within.is_ok(), "{kind:?} never ends; so far {}", shown(&told));
    if let Some(job) = job {
        job.abort();
    }
    told
}

/// Without the sound.
fn shown(told: &[Input<'_>]) -> String {
    let sounds = told.iter().filter(|input| matches!(input, Input::Speech { .. })).count();
    let others = told.iter().filter(|input| !matches!(input, Input::Speech { .. }));
    format!("{sounds} pieces of sound, {:?}", others.collect::<Vec<_>>())
}

async fn failure(kind: Kind, server: &str, tls: bool) -> Failure {
    let dialogue = dialogue_with(kind, server, tls);
    if kind == K::Bot {
        let Mode::Dialogue { agent, .. } = &dialogue.mode else { panic!() };
        let bot = Bot::new(agent.endpoint(), None).unwrap();
        return bot.connect(WebSocketConfig::default(), None).await.unwrap_err();
    }
    let services = Services::new(&dialogue, |_| {}).unwrap();
    let told = inputs(kind, &services).await;
    let [Input::Failed { failure, .. }] = &*told else { panic!("{kind:?}: {}", shown(&told)) };
    failure.clone()
}

fn is_possible(kind: Kind, fault: Fault) -> bool {
    match (kind, fault) {
        // Once it has answered the handshake, a bot is the call's own affair: see `edge/relay`.
        (K::Bot, Fault::HangMidStream | Fault::Trickle | Fault::Flood) => false,
        // Something comes all the time: only the call's own deadline ends it, or who stands in.
        (_, Fault::Trickle) => kind.is_socket(),
        _ => true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_with_every_fault_fails_soon_and_names_its_owner() {
    let all = KINDS.iter().flat_map(|kind| FAULTS.map(|fault| (*kind, fault)));
    let trials = all.filter(|(kind, fault)| is_possible(*kind, *fault)).map(|(kind, fault)| async move {
        let (server, sent) = server(kind, fault).await;
        let since = Instant::now();
        let Failure { upstream, kind: how, why } = failure(kind, &server, fault == Fault::NoTls).await;
        let what = format!("{kind:?} {fault:?}: {how:?} {why}");
        assert!(since.elapsed() < LONG, "{what}");
        assert_eq!(upstream, "troubled", "{what}");
        let owners = ["your config", "the vendor", "the service", "your bot", "the network"];
        let is_named = owners.iter().any(|owner| why.starts_with(owner));
        // The reason stands behind that it was not asked again.
        let behind = why.split_once("the last: ").map_or("", |(_, why)| why);
        let is_behind =
            how == FailureKind::BreakerOpen && owners.iter().any(|owner| behind.starts_with(owner));
        assert!(is_named || is_behind, "{what}");
        assert!(
            sent.load(Ordering::Relaxed) < MOST_TAKEN,
            "{what}: {} bytes were taken",
            sent.load(Ordering::Relaxed)
        );
        let expected: &[FailureKind] = match fault {
            Fault::Refuse => &[FailureKind::Connect],
            Fault::HangBeforeHead | Fault::HangMidStream | Fault::Trickle => &[FailureKind::Timeout],
            Fault::Reset | Fault::Garbage | Fault::NoTls => &[FailureKind::Connect, FailureKind::Protocol],
            Fault::Flood | Fault::WrongType => &[FailureKind::Protocol, FailureKind::Http4xx],
        };
        assert!(expected.contains(&how) || is_behind, "{what}");
    });
    join_all(trials).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_fault_who_stands_in_is_heard() {
    let sound =
        [b"HTTP/1.1 200 OK\r\nContent-Type: audio/basic\r\nContent-Length: 4000\r\n\r\n", &*hum(4000)]
            .concat();
    let text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";
    let (voice, words) = (Fake::answering(sound).await, Fake::answering(text).await);
    let all = KINDS.iter().flat_map(|kind| FAULTS.map(|fault| (*kind, fault)));
    // Recognisers that hear the whole call: `stream/tests/faults.rs`.
    let all = all.filter(|(kind, _)| !matches!(kind, K::Bot | K::DeepgramStt | K::Vosk));
    let trials = all.map(|(kind, fault)| {
        let (good_voice, good_words) = (dialogue(&[voice.server()]).mode, dialogue(&[words.server()]).mode);
        async move {
            let (server, _) = server(kind, fault).await;
            let mut dialogue = dialogue_with(kind, &server, fault == Fault::NoTls);
            let (Mode::Dialogue { tts, .. }, Mode::Dialogue { stt, agent, .. }) = (good_voice, good_words)
            else {
                panic!()
            };
            let fallbacks = &mut dialogue.fallbacks;
            (fallbacks.stt, fallbacks.agent, fallbacks.tts) = (vec![stt], vec![agent], vec![tts]);
            (fallbacks.stt_after, fallbacks.agent_after, fallbacks.tts_after) =
                (2 * SOON, 2 * SOON, 2 * SOON);
            let services = Services::new(&dialogue, |_| {}).unwrap();
            let told = inputs(kind, &services).await;
            let is_heard = match &told[..] {
                [Input::Transcript { text, .. }]
                | [Input::ReplyText { text, .. }, Input::ReplyEnd { .. }] => text == "hi",
                [Input::Speech { .. }, .., Input::SpeechEnd { .. }] => true,
                _ => false,
            };
            assert!(is_heard, "{kind:?} {fault:?}: {}", shown(&told));
        }
    });
    join_all(trials).await;
}
