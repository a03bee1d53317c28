//! A service for tests, which speaks HTTP by hand, so that each of its faults is exactly where a
//! test wants it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::time::timeout;

use super::{Notice, Observation, Services};
use crate::audio::mulaw;
use crate::call::{Failure, Input, Posted};
use crate::config::{
    Agent, Dialogue, Endpoint, Fallbacks, Mode, OpenAiAgent, OpenAiStt, OpenAiTts, RawAudio, Secret,
    SpeechFormat, Stt, SttFormat, Tts, Upstream,
};

/// Long enough on the busiest machine; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Fake {
    pub(super) addr: SocketAddr,
    requests: UnboundedReceiver<Request>,
    done: Option<(UnboundedSender<Observation>, UnboundedReceiver<Observation>)>,
}

pub(super) struct Request {
    /// Which connection it came on, from 0.
    pub(super) connection: usize,
    /// Request line and headers, in lower case, up to and with the empty line.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Is this line among the headers?
    pub(super) fn has(&self, line: &str) -> bool {
        self.head.contains(&format!("\r\n{line}\r\n"))
    }
}

/// An address that refuses connections: it has an owner, who does not listen, so that it is given to no server of a
/// test beside this one.
pub(super) fn nowhere() -> String {
    let owner = TcpSocket::new_v4().unwrap();
    owner.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = owner.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let _owner = owner;
        std::future::pending::<()>().await;
    });
    address
}

/// One connection of a client.
pub(super) struct Peer {
    stream: TcpStream,
    connection: usize,
    requests: UnboundedSender<Request>,
}

impl Fake {
    /// Serves every connection with this, told which one it is.
    pub(super) async fn serving<F>(serve: impl Fn(usize, Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tx, requests) = unbounded_channel();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(connection, Peer { stream, connection, requests: tx.clone() }));
            }
        });
        Self { addr, requests, done: Some(unbounded_channel()) }
    }

    /// Answers every request with these bytes and keeps the connection.
    pub(super) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::serving(move |_, mut peer| {
            let answer = answer.clone();
            async move {
                while peer.try_request().await {
                    peer.send(&answer).await;
                }
            }
        })
        .await
    }

    pub(super) fn server(&self) -> String {
        self.addr.to_string()
    }

    /// Services all three of which are this server, with time-outs that no test waits for.
    pub(super) fn services(&mut self) -> Services {
        self.services_with(|_| {})
    }

    pub(super) fn services_with(&mut self, change: impl Fn(&mut Upstream)) -> Services {
        let mut dialogue = dialogue(&[self.server()]);
        if let Mode::Dialogue {
            stt: Stt::Webhook { endpoint: stt, .. },
            agent: Agent::Webhook { endpoint: agent },
            tts: Tts::Webhook { endpoint: tts, .. },
        } = &mut dialogue.mode
        {
            [stt, agent, tts].into_iter().for_each(|endpoint| change(&mut endpoint.upstream));
        }
        let done = self.done.as_ref().unwrap().0.clone();
        Services::new(&dialogue, move |notice| tell_done(&done, notice)).unwrap()
    }

    /// The same, with a recogniser and a voice that speak a vendor's API, which begins at `/v1`.
    pub(super) fn services_as(
        &mut self,
        stt: impl Fn(Endpoint) -> Stt,
        tts: impl Fn(Endpoint) -> Tts,
    ) -> Services {
        let mut dialogue = dialogue(&[self.server()]);
        if let Mode::Dialogue { stt: old_stt, tts: old_tts, .. } = &mut dialogue.mode {
            let api = Endpoint { path: "/v1".to_owned(), headers: Vec::new(), ..old_stt.endpoint().clone() };
            (*old_stt, *old_tts) = (stt(api.clone()), tts(api));
        }
        let done = self.done.as_ref().unwrap().0.clone();
        Services::new(&dialogue, move |notice| tell_done(&done, notice)).unwrap()
    }

    /// The same, with an agent of another kind, whose API begins at `/v1`.
    pub(super) fn services_with_agent(&mut self, new: impl Fn(Endpoint) -> Agent) -> Services {
        let mut dialogue = dialogue(&[self.server()]);
        if let Mode::Dialogue { agent, .. } = &mut dialogue.mode {
            *agent =
                new(Endpoint { path: "/v1".to_owned(), headers: Vec::new(), ..agent.endpoint().clone() });
        }
        Services::new(&dialogue, |_| {}).unwrap()
    }

    /// The next request that came.
    pub(super) async fn request(&mut self) -> Request {
        timeout(PATIENCE, self.requests.recv()).await.expect("a request").unwrap()
    }

    /// How many requests came that no test has looked at.
    pub(super) fn more_requests(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }

    /// What the services told of their next request.
    pub(super) async fn observation(&mut self) -> Observation {
        let done = &mut self.done.as_mut().unwrap().1;
        timeout(PATIENCE, done.recv()).await.expect("an observation").unwrap()
    }
}

impl Peer {
    /// Reads a whole request; false if the client closed the connection instead.
    pub(super) async fn try_request(&mut self) -> bool {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !matches!(self.stream.read_buf(&mut bytes).await, Ok(1..)) {
                return false;
            }
        };
        let mut body = bytes.split_off(head);
        let head = String::from_utf8(bytes).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a content-length").parse().unwrap();
        while body.len() < length {
            if !matches!(self.stream.read_buf(&mut body).await, Ok(1..)) {
                return false;
            }
        }
        let _ = self.requests.send(Request { connection: self.connection, head, body });
        true
    }

    pub(super) async fn request(&mut self) {
        assert!(self.try_request().await, "a request");
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).await;
    }

    /// Sends; false if the client is gone.
    pub(super) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Sends one byte at a time.
    pub(super) async fn dribble(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send([*byte]).await;
            tokio::task::yield_now().await;
        }
    }

    /// Sends a chunk of a chunked body.
    pub(super) async fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(chunk).await;
    }

    /// Does nothing until the client closes the connection.
    pub(super) async fn closed(&mut self) {
        let mut buffer = [0; 1024];
        while matches!(self.stream.read(&mut buffer).await, Ok(1..)) {}
    }

    /// Breaks the connection with a TCP reset.
    pub(super) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

pub(super) fn tell_done(done: &UnboundedSender<Observation>, notice: &Notice) {
    if let Notice::Done(observation) = notice {
        let _ = done.send(observation.clone());
    }
}

/// A dialogue all three services of which are these servers, with time-outs that no test waits for.
pub(super) fn dialogue(servers: &[String]) -> Dialogue {
    let endpoint = |path: &str| Endpoint {
        upstream: Upstream {
            connect_timeout: PATIENCE,
            first_byte_timeout: PATIENCE,
            stall_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            max_in_flight: 8,
            ..Upstream::new("bot", servers.to_vec())
        },
        path: path.to_owned(),
        headers: vec![("Authorization".to_owned(), Secret("Bearer hush".to_owned()))],
    };
    Dialogue {
        apology_audio: None,
        filler: String::new(),
        filler_after: PATIENCE,
        mode: Mode::Dialogue {
            stt: Stt::Webhook { endpoint: endpoint("/stt?key=secret"), format: SttFormat::Wav },
            agent: Agent::Webhook { endpoint: endpoint("/agent") },
            tts: Tts::Webhook {
                endpoint: endpoint("/tts"),
                voice: Some("anna".to_owned()),
                raw: RawAudio { pcm_rate: 8000 },
            },
        },
        apology: String::new(),
        reply_deadline: PATIENCE,
        fallbacks: Fallbacks::default(),
        speech_cache: 0,
    }
}

/// OpenAI's API at this endpoint, with nothing set that need not be.
pub(super) fn openai_stt(endpoint: Endpoint) -> Stt {
    Stt::OpenAi(OpenAiStt {
        endpoint,
        api_key: Some(Secret("sk-hush".to_owned())),
        model: "gpt-transcribe".to_owned(),
        language: None,
        prompt: None,
        temperature: None,
    })
}

pub(super) fn openai_agent(endpoint: Endpoint) -> Agent {
    Agent::OpenAi(OpenAiAgent {
        endpoint,
        api_key: None,
        model: "m".to_owned(),
        instructions: None,
        temperature: None,
        reasoning_effort: None,
        max_tokens: None,
        max_completion_tokens: None,
        history_turns: 9,
        tools: Vec::new(),
    })
}

pub(super) fn openai_tts(endpoint: Endpoint) -> Tts {
    Tts::OpenAi(OpenAiTts {
        endpoint,
        api_key: Some(Secret("sk-hush".to_owned())),
        model: "gpt-4o-mini-tts".to_owned(),
        voice: "alloy".to_owned(),
        instructions: None,
        speed: None,
        response_format: SpeechFormat::Pcm,
    })
}

/// μ-law that is plainly μ-law: a hum.
pub(super) fn hum(samples: usize) -> Vec<u8> {
    (0..samples).map(|n| mulaw::encode(((n as f32 / 20.0).sin() * 8000.0) as i16)).collect()
}

/// What was heard of a sentence that was spoken to its end.
#[track_caller]
pub(super) fn spoken(inputs: &[Input<'static>]) -> Vec<u8> {
    let Some((Input::SpeechEnd { .. }, audio)) = inputs.split_last() else { panic!("{inputs:?}") };
    let pieces = audio.iter().map(|input| match input {
        Input::Speech { audio, .. } => audio.to_vec(),
        other => panic!("{other:?}"),
    });
    pieces.flatten().collect()
}

/// All that a job sends, until it ends.
pub(super) async fn heard<F>(job: impl FnOnce(Sender<Posted>) -> F) -> Vec<Input<'static>>
where
    F: Future<Output = ()> + Send + 'static,
{
    // Small, so that a job that outruns its reader would be seen to wait.
    let (to, mut inputs) = channel(1);
    let job = tokio::spawn(job(to));
    let mut heard = Vec::new();
    let all = async {
        while let Some(input) = inputs.recv().await {
            heard.push(*input);
        }
        job.await.unwrap();
    };
    timeout(PATIENCE, all).await.expect("the job ends");
    heard
}

/// The failure in which a job ended, which is the last of what it sent, and the only one.
#[track_caller]
pub(super) fn failed(inputs: &[Input<'static>]) -> Failure {
    let failures = inputs.iter().filter(|input| matches!(input, Input::Failed { .. })).count();
    match inputs {
        [.., Input::Failed { failure, .. }] if failures == 1 => failure.clone(),
        _ => panic!("no failure at the end of {inputs:?}"),
    }
}
