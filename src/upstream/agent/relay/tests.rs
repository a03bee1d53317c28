//! A ConversationRelay app by hand, and what a call makes of it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::super::super::fake::dialogue;
use super::super::super::tests::ids;
use super::super::super::{CallServices, Services};
use super::*;
use crate::call::{Action, FailureKind, Input, Job, Keys, Posted};
use crate::config::{Agent, BreakerLimits, Mode};

/// Long enough on the busiest machine; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    listener: TcpListener,
    call: CallServices,
    inputs: Receiver<Posted>,
}

/// The app's end of a socket.
struct App(WebSocketStream<TcpStream>);

impl World {
    async fn new(change: impl Fn(&mut RelayAgent)) -> World {
        World::waiting(None, change).await
    }

    /// Where a reply is given this long.
    async fn waiting(deadline: Option<Duration>, change: impl Fn(&mut RelayAgent)) -> World {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap().to_string();
        let mut dialogue = dialogue(&[server]);
        if let Mode::Dialogue { agent, .. } = &mut dialogue.mode {
            let mut relay = RelayAgent { endpoint: agent.endpoint().clone(), language: "en-US".to_owned() };
            change(&mut relay);
            *agent = Agent::ConversationRelay(relay);
        }
        if let Some(deadline) = deadline {
            dialogue.reply_deadline = deadline;
        }
        let services = Services::new(&dialogue, |_| {}).unwrap();
        let (to, inputs) = channel(1);
        World { listener, call: services.for_call(ids(), to), inputs }
    }

    /// The app takes the next socket, and has read `setup`.
    async fn accept(&self) -> App {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("a connection").unwrap();
        let mut app = App(accept_async(stream).await.unwrap());
        let setup = app.told().await;
        assert_eq!((&setup["type"], &setup["callSid"]), (&json!("setup"), &json!("CA1")));
        app
    }

    fn ask(&self, turn: u64, text: &str, dtmf: Option<&str>) -> JoinHandle<()> {
        tokio::spawn(self.call.ask(Question {
            turn,
            text: text.to_owned(),
            dtmf: dtmf.map(str::to_owned),
            interrupted: false,
            heard: String::new(),
            action_failed: None,
            deadline_ms: 1,
        }))
    }

    fn heard(&self, turn: u64, text: &str, after_ms: u64) {
        let after = Duration::from_millis(after_ms);
        self.call.heard(ReplyHeard {
            turn,
            text: text.to_owned(),
            interrupted: true,
            asked_again: false,
            after,
        });
    }

    /// What the call is told next: turn and text, or turn and action, or turn and failure.
    async fn input(&mut self) -> (u64, String) {
        match *timeout(PATIENCE, self.inputs.recv()).await.expect("an input").unwrap() {
            Input::ReplyText { turn, text } => (turn, text),
            Input::ReplyEnd { turn, action } => (turn, format!("<{action:?}>")),
            Input::Failed { job: Job::Ask { turn }, failure } => {
                let server = self.listener.local_addr().unwrap().to_string();
                assert_eq!(failure.upstream, "bot");
                (turn, format!("<{:?}> {}", failure.kind, failure.why.replace(&server, "APP")))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn inputs<const N: usize>(&mut self, expected: [(u64, &str); N]) {
        for (turn, text) in expected {
            assert_eq!(self.input().await, (turn, text.to_owned()));
        }
    }
}

impl App {
    async fn told(&mut self) -> Value {
        match timeout(PATIENCE, self.0.next()).await.expect("a message").unwrap().unwrap() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn closed_with(&mut self) -> u16 {
        match timeout(PATIENCE, self.0.next()).await.expect("a message").unwrap().unwrap() {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("{other:?}"),
        }
    }

    async fn send(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    async fn says(&mut self, token: &str, last: bool) {
        self.send(json!({"type": "text", "token": token, "last": last}).to_string()).await;
    }

    async fn is_asked(&mut self, text: &str) {
        let prompt = json!({"type": "prompt", "voicePrompt": text, "lang": "en-US", "last": true});
        assert_eq!(self.told().await, prompt);
    }
}

const END: &str = "<None>";

#[tokio::test]
async fn a_welcome_and_a_turn() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    app.says("Welcome. ", false).await;
    app.says("", true).await;
    world.inputs([(0, "Welcome. "), (0, END)]).await;
    let asked = world.ask(1, "hello", None);
    app.is_asked("hello").await;
    app.says("Hi ", false).await;
    world.inputs([(1, "Hi ")]).await;
    app.says("there.", true).await;
    world.inputs([(1, "there."), (1, END)]).await;
    asked.await.unwrap();
    app.says("By the way.", true).await;
    world.inputs([(0, "By the way."), (0, END)]).await;
    drop(world.call);
    assert_eq!(app.closed_with().await, 1000);
}

#[tokio::test]
async fn an_interruption_is_told_at_once_and_the_rest_is_not_spoken() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    let asked = world.ask(1, "hello", None);
    app.is_asked("hello").await;
    app.says("Life is a ", false).await;
    world.inputs([(1, "Life is a ")]).await;
    world.heard(1, "Life is", 460);
    let interrupt =
        json!({"type": "interrupt", "utteranceUntilInterrupt": "Life is", "durationUntilInterruptMs": 460});
    assert_eq!(app.told().await, interrupt);
    asked.await.unwrap();
    // Written before it could know.
    app.says("complex set ", false).await;
    app.says("of things.", true).await;
    app.says("Sorry.", true).await;
    world.inputs([(0, "Sorry."), (0, END)]).await;
    // One that stops in the middle of its reply, as most do.
    let _asked = world.ask(2, "again", None);
    app.is_asked("again").await;
    app.says("Once ", false).await;
    world.inputs([(2, "Once ")]).await;
    world.heard(2, "", 10);
    assert_eq!(app.told().await["type"], "interrupt");
    let _asked = world.ask(3, "stop", None);
    app.is_asked("stop").await;
    app.says("All right.", true).await;
    world.inputs([(3, "All right."), (3, END)]).await;
}

#[tokio::test]
async fn what_nobody_asked_for_is_interrupted_too() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    app.says("Welcome to ", false).await;
    world.inputs([(0, "Welcome to ")]).await;
    world.heard(0, "Welcome", 300);
    assert_eq!(app.told().await["utteranceUntilInterrupt"], "Welcome");
    world.inputs([(0, END)]).await;
    app.says("our shop.", true).await;
    app.says("Yes?", true).await;
    world.inputs([(0, "Yes?"), (0, END)]).await;
}

#[tokio::test]
async fn who_has_said_nothing_is_not_interrupted() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    let first = world.ask(1, "book a table", None);
    app.is_asked("book a table").await;
    first.abort();
    world.heard(1, "", 0);
    let _asked = world.ask(2, "book a table for two", None);
    app.is_asked("book a table for two").await;
    app.says("Done.", true).await;
    world.inputs([(2, "Done."), (2, END)]).await;
}

#[tokio::test]
async fn a_lost_socket_fails_the_turn_and_the_next_one_has_a_new_one() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    let _asked = world.ask(1, "hello", None);
    app.is_asked("hello").await;
    app.says("Hi ", false).await;
    world.inputs([(1, "Hi ")]).await;
    app.0.close(None).await.unwrap();
    world.inputs([(1, "<Protocol> the vendor: the app closed the socket")]).await;
    let _asked = world.ask(2, "hello?", None);
    let mut app = world.accept().await;
    app.is_asked("hello?").await;
    app.says("Here I am.", true).await;
    world.inputs([(2, "Here I am."), (2, END)]).await;
}

#[tokio::test]
async fn a_call_that_goes_on_with_another_stream_is_known_by_that_one() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    let parameters = BTreeMap::from([("resumed".to_owned(), "1".to_owned())]);
    world.call = world.call.clone().for_stream(CallIds { parameters, ..(*ids()).clone() });
    let _asked = world.ask(1, "hello", None);
    app.is_asked("hello").await;
    app.0.close(None).await.unwrap();
    world.inputs([(1, "<Protocol> the vendor: the app closed the socket")]).await;
    let _asked = world.ask(2, "hello?", None);
    let (stream, _) = timeout(PATIENCE, world.listener.accept()).await.expect("a connection").unwrap();
    let mut app = App(accept_async(stream).await.unwrap());
    assert_eq!(app.told().await["customParameters"]["resumed"], "1");
}

#[tokio::test]
async fn an_app_that_says_nothing_is_not_waited_for_for_ever() {
    let mut world = World::new(|relay| {
        relay.endpoint.upstream.first_byte_timeout = Duration::from_millis(80);
        relay.endpoint.upstream.stall_timeout = Duration::from_millis(90);
    })
    .await;
    let mut app = world.accept().await;
    let _asked = world.ask(1, "hello", None);
    app.is_asked("hello").await;
    world.inputs([(1, "<Timeout> the vendor: the app said nothing within 80 ms")]).await;
    app.says("Too late.", true).await;
    app.says("By the way.", true).await;
    world.inputs([(0, "By the way."), (0, END)]).await;
    let _asked = world.ask(2, "again", None);
    app.is_asked("again").await;
    app.says("Hi ", false).await;
    world.inputs([(2, "Hi ")]).await;
    let silent = "<Timeout> the vendor: the app fell silent for 90 ms before its last word";
    world.inputs([(2, silent)]).await;
}

#[tokio::test]
async fn an_app_that_takes_sockets_and_answers_nobody_is_not_asked_any_more() {
    let mut world = World::waiting(Some(Duration::ZERO), |relay| {
        relay.endpoint.upstream.breaker = BreakerLimits { failures: NonZeroU32::new(2), cooldown: PATIENCE };
    })
    .await;
    // Given up by the call, as its deadline is over.
    let give_up = async |asked: JoinHandle<()>| {
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
    };
    let mut app = world.accept().await;
    let asked = world.ask(1, "hello", None);
    app.is_asked("hello").await;
    give_up(asked).await;
    // Another socket is no answer.
    app.0.close(None).await.unwrap();
    while timeout(PATIENCE, app.0.next()).await.expect("the end").is_some() {}
    let asked = world.ask(2, "hello?", None);
    let mut app = world.accept().await;
    app.is_asked("hello?").await;
    give_up(asked).await;
    let _asked = world.ask(3, "anybody?", None);
    let (turn, why) = world.input().await;
    let opened = why.starts_with("<BreakerOpen> APP was not asked: its breaker opened ");
    let row = why.contains("2 failures in a row, the last: the vendor: the app said nothing within ");
    assert!(turn == 3 && opened && row, "{why}");
    // The answer to what was given up is too late, and what it says by itself is heard.
    app.says("Too late.", true).await;
    app.says("I am back.", true).await;
    world.inputs([(0, "I am back."), (0, END)]).await;
}

#[tokio::test]
async fn what_is_no_message_is_answered_and_counted() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    app.send("{\"type\":\"dance\"}").await;
    let error = json!({"type": "error", "description": "Invalid message received: {\"type\":\"dance\"}"});
    assert_eq!(app.told().await, error);
    app.says("Hi.", true).await;
    world.inputs([(0, "Hi."), (0, END)]).await;
    for _ in 1..10 {
        app.send("Hi").await;
        assert_eq!(app.told().await["type"], "error");
    }
    app.send("Hi").await;
    assert_eq!(app.closed_with().await, 1007);
}

#[tokio::test]
async fn an_app_that_ends_the_call_has_its_last_word() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    let _asked = world.ask(1, "bye", None);
    app.is_asked("bye").await;
    app.says("Goodbye.", false).await;
    app.send(r#"{"type":"end","handoffData":"{\"reason\":\"done\"}"}"#).await;
    world.inputs([(1, "Goodbye."), (1, END), (0, "<Hangup>")]).await;
    assert_eq!(app.closed_with().await, 1000);
    let _asked = world.ask(2, "wait", None);
    world.inputs([(2, "<Hangup>")]).await;
}

#[tokio::test]
async fn keys_are_told_one_by_one_and_need_no_answer() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    world.ask(1, "1#", Some("1#")).await.unwrap();
    for digit in ["1", "#"] {
        assert_eq!(app.told().await, json!({"type": "dtmf", "digit": digit}));
    }
    world.inputs([(1, END)]).await;
    app.says("One.", true).await;
    world.inputs([(0, "One."), (0, END)]).await;
}

#[tokio::test]
async fn digits_to_send_are_an_action_and_the_rest_is_ignored() {
    let mut world = World::new(|_| {}).await;
    let mut app = world.accept().await;
    app.send(r#"{"type":"play","source":"https://x/a.mp3","loop":1}"#).await;
    app.send(r#"{"type":"language","ttsLanguage":"sv-SE"}"#).await;
    app.send(r#"{"type":"sendDigits","digits":"9w1"}"#).await;
    let action = Action::SendDigits { digits: Keys::parse("9w1").unwrap() };
    assert_eq!(world.input().await, (0, format!("<{action:?}>")));
}

#[tokio::test]
async fn an_app_that_takes_no_socket() {
    let mut world = World::new(|_| {}).await;
    let refuse = async |world: &World, answer: &str| {
        let (mut stream, _) = world.listener.accept().await.unwrap();
        let mut request = [0; 2048];
        tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nno page";
    refuse(&world, not_found).await;
    let _asked = world.ask(1, "hello", None);
    refuse(&world, not_found).await;
    let why = "<Http4xx> your config: url: ws://APP/agent: answered 404, and not with a WebSocket: no page";
    world.inputs([(1, why)]).await;
    let _asked = world.ask(2, "hello", None);
    refuse(&world, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    let (_, why) = world.input().await;
    assert!(why.starts_with("<Http5xx> the vendor failed: "), "{why}");
}

#[tokio::test]
async fn an_app_that_is_not_there() {
    let world = World::new(|_| {}).await;
    let server = world.listener.local_addr().unwrap();
    let World { listener, call, mut inputs } = world;
    drop(listener);
    // The socket that was waited for may have been taken before; the next is not.
    let asked = tokio::spawn(call.ask(Question {
        turn: 1,
        text: "hello".to_owned(),
        dtmf: None,
        interrupted: false,
        heard: String::new(),
        action_failed: None,
        deadline_ms: 1,
    }));
    let failed = timeout(PATIENCE, inputs.recv()).await.unwrap().unwrap();
    let Input::Failed { failure, .. } = *failed else { panic!("{failed:?}") };
    if failure.kind == FailureKind::Connect {
        let why = format!("the vendor: ws://{server}/agent: connection refused: is it running?");
        assert_eq!(failure.why, why);
    }
    asked.await.unwrap();
}

#[tokio::test]
async fn a_call_that_ends_while_its_socket_is_opened_leaves_none() {
    let world = World::new(|relay| relay.endpoint.upstream.connect_timeout = PATIENCE * 10).await;
    let (mut stream, _) = timeout(PATIENCE, world.listener.accept()).await.expect("a connection").unwrap();
    // The handshake, which nobody answers.
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        timeout(PATIENCE, stream.read_buf(&mut read)).await.expect("a handshake").unwrap();
    }
    let World { call, inputs, .. } = world;
    drop((call, inputs));
    read.clear();
    timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("the end").unwrap();
    assert!(read.is_empty());
}
