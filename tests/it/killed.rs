//! `kill -9` in mid-call: what was written is whole, the next start is clean, and the caller is taken up again by
//! the TwiML that was served, whichever process answers then.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use voxgate::tape::Tape;
use voxgate::twilio::lint::{Site, Stream, lint};

use crate::relay;
use crate::world::{Bot, Fake, Gateway, MediaStream, Server, Wire, run, tone, until};

const PUBLIC: &str = "public_url = \"https://bot.example.com\"";
const TOKEN: (&str, &str) = ("TWILIO_AUTH_TOKEN", "t0ken");
const OVER: &str = "<Response>\n  <Hangup/>\n</Response>";
const SERVE: &str = "[twilio]\ntwiml = \"serve\"\ntoken = \"enforce\"\nresume = true\n";

/// A call, as the carrier knows it: what to do next it was told by TwiML.
struct Call {
    sid: &'static str,
    stream: Stream,
    redirect: Option<String>,
}

impl Call {
    fn comes_in(gateway: &Gateway, sid: &'static str) -> Call {
        Call::told(sid, &ask(gateway, "/webhook/incoming_call", sid, "ringing"))
    }

    fn told(sid: &'static str, twiml: &str) -> Call {
        let linted = lint(twiml.as_bytes(), &Site { media_path: "/ws/twilio-media", ..Site::default() });
        assert_eq!(linted.findings, [], "{twiml}");
        let [stream] = &linted.streams[..] else { panic!("{twiml}") };
        let redirect = twiml.split_once("<Redirect method=\"POST\">https://bot.example.com");
        let redirect = redirect.and_then(|(_, rest)| rest.split_once("</Redirect>"));
        Call { sid, stream: stream.clone(), redirect: redirect.map(|(path, _)| path.to_owned()) }
    }

    fn connect(&self, gateway: &Gateway) -> MediaStream {
        let path = self.stream.url.strip_prefix("wss://bot.example.com").unwrap();
        let mut stream = MediaStream::try_open_at(gateway, path).unwrap();
        stream.call_sid = self.sid.to_owned();
        let mut start = stream.start_message();
        let parameters = self.stream.parameters.iter().cloned();
        let parameters = parameters.map(|(name, value)| (name, Value::String(value)));
        start["start"]["customParameters"] = parameters.collect::<serde_json::Map<_, _>>().into();
        stream.send(&start);
        stream
    }

    /// The verb behind `<Connect>`, once the stream has gone.
    fn goes_on(&self, gateway: &Gateway) -> String {
        ask(gateway, self.redirect.as_ref().unwrap(), self.sid, "in-progress")
    }
}

fn ask(gateway: &Gateway, path: &str, call_sid: &str, status: &str) -> String {
    let form =
        format!("AccountSid=AC1&CallSid={call_sid}&From=%2B15550001&To=%2B15550002&CallStatus={status}");
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: bot.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let answer = Wire::ask(gateway.port, &request);
    assert_eq!(answer.status(), 200);
    answer.text().to_owned()
}

/// A bot that says the same whatever is said, in a tone of its own; and where its services are.
fn bot(more: &str) -> (Fake, Bot) {
    let agent = Fake::start(|_, _, reply| reply.whole(200, "text/plain", b"Nine to five."));
    let stt = Fake::stt("when");
    // By its length a greeting is known from an answer.
    let tts = Fake::start(|_, asked, reply| {
        let asked = String::from_utf8_lossy(&asked.body).into_owned();
        reply.whole(200, "audio/basic", &tone(if asked.contains("Welcome") { 600 } else { 200 }));
    });
    let bot = Bot {
        stt: format!("url = \"{}\"", stt.url("/stt")),
        agent: format!("url = \"{}\"", agent.url("/agent")),
        tts: format!("url = \"{}\"", tts.url("/tts")),
        more: format!("{more}[turn]\ngreeting = \"Welcome.\"\n"),
        ..Bot::at(1)
    };
    (agent, bot)
}

fn length(ms: usize) -> std::ops::RangeInclusive<usize> {
    ms * 8..=ms * 8 + 480
}

/// What the agent was asked about: turns, and the text of each.
fn turns(agent: &Fake) -> Vec<u64> {
    let asked = agent.asked().into_iter();
    asked
        .map(|asked| serde_json::from_slice::<Value>(&asked.body).unwrap()["turn"].as_u64().unwrap())
        .collect()
}

#[test]
fn the_caller_is_taken_up_again_by_the_next_process_without_a_second_greeting() {
    let tapes = std::env::temp_dir().join(format!("voxgate-taken-up-{}", std::process::id()));
    let _ = fs::remove_dir_all(&tapes);
    let (agent, bot) = bot(&format!("{SERVE}[recording]\nfolder = \"{}\"\n", tapes.display()));
    let mut gateway = Gateway::start_with(&bot.config(), PUBLIC, &[TOKEN]);
    gateway.event("PHRASE_RENDERED", 1);

    let call = Call::comes_in(&gateway, "CA1");
    let mut stream = call.connect(&gateway);
    assert!(length(600).contains(&stream.reply().len()), "the greeting");
    stream.say(&tone(300));
    assert!(length(200).contains(&stream.reply().len()), "an answer");
    // In the middle of a word.
    stream.media(&tone(100));
    let before = gateway.log();
    gateway.killed();
    assert_eq!(stream.closed(), 1006);

    // The call's tape can be read, and every line of the log is whole.
    let tape = fs::read_dir(&tapes).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&tape).unwrap();
    let read = Tape::read(&bytes).unwrap();
    assert!(read.missing().is_some() && !read.entries.is_empty());
    assert!(before.iter().all(Value::is_object), "{before:?}");
    gateway.event("PHRASE_RENDERED", 1);

    let call = Call::told("CA1", &call.goes_on(&gateway));
    let again = ("resumed".to_owned(), "1".to_owned());
    assert!(call.stream.parameters.contains(&again), "{:?}", call.stream.parameters);
    assert_eq!(call.redirect.as_deref(), Some("/webhook/stream_ended?resumed=2"));
    let mut stream = call.connect(&gateway);
    stream.say(&tone(300));
    assert!(length(200).contains(&stream.reply().len()), "a greeting, again");
    stream.hang_up();
    // A turn of the first process's would have been a repeat to the app.
    assert_eq!(turns(&agent), [1, 10_001]);
    assert_eq!(gateway.event("CALL_RESUMED", 0)["call_sid"], "CA1");
    let troubled = |line: &&Value| ["WARN", "ERROR"].iter().any(|level| line["level"] == *level);
    let log = gateway.log();
    assert_eq!(log.iter().find(troubled), None);
    let _ = fs::remove_dir_all(&tapes);
}

/// The same process knows more: what the call was about, and whether it was ended on purpose.
#[test]
fn a_stream_that_breaks_comes_back_and_one_that_was_ended_does_not() {
    let (agent, bot) = bot(SERVE);
    let gateway =
        Gateway::start_with(&(bot.config() + "[limits]\nmedia_timeout = \"1s\"\n"), PUBLIC, &[TOKEN]);
    gateway.event("PHRASE_RENDERED", 1);
    let first = Call::comes_in(&gateway, "CA1");
    let mut stream = first.connect(&gateway);
    assert!(length(600).contains(&stream.reply().len()), "the greeting");
    stream.say(&tone(300));
    stream.reply();
    drop(stream);
    assert_eq!(gateway.event("WS_STOP", 0)["reason"], "ws_lost");

    let second = Call::told("CA1", &first.goes_on(&gateway));
    let mut stream = second.connect(&gateway);
    stream.say(&tone(300));
    assert!(length(200).contains(&stream.reply().len()), "a greeting, again");
    assert_eq!((turns(&agent), gateway.event("CALL_RESUMED", 0)["turns"].clone()), (vec![1, 2], json!(1)));
    assert_eq!(stream.closed(), 1000, "nothing is heard any more");
    assert_eq!(gateway.event("WS_STOP", 1)["reason"], "timeout");
    assert!(second.goes_on(&gateway).contains(OVER));

    // What this process does not know of is bounded all the same, and has to be up.
    for (path, status, comes_back) in [
        ("/webhook/stream_ended?resumed=5", "in-progress", true),
        ("/webhook/stream_ended?resumed=6", "in-progress", false),
        ("/webhook/stream_ended?resumed=x", "in-progress", false),
        ("/webhook/stream_ended", "in-progress", false),
        ("/webhook/stream_ended?resumed=1", "completed", false),
    ] {
        let twiml = ask(&gateway, path, "CA2", status);
        assert_eq!(twiml.contains("<Stream"), comes_back, "{path}: {twiml}");
        assert_eq!(twiml.contains(OVER), !comes_back, "{path}: {twiml}");
    }
}

/// Twilio knows of a break before the gateway does, where neither end of the connection has said so.
#[test]
fn a_caller_who_comes_back_is_not_one_too_many_beside_the_stream_that_broke() {
    let (_agent, bot) = bot(SERVE);
    let config = bot.config() + "[limits]\nmax_calls_per_number = 1\n";
    let gateway = Gateway::start_with(&config, PUBLIC, &[TOKEN]);
    let first = Call::comes_in(&gateway, "CA1");
    let broken = first.connect(&gateway);
    gateway.event("WS_START", 0);
    let second = Call::told("CA1", &first.goes_on(&gateway));
    let mut stream = second.connect(&gateway);
    assert_eq!(gateway.event("WS_START", 1)["call_sid"], "CA1");
    let other = ask(&gateway, "/webhook/incoming_call", "CA2", "ringing");
    assert!(!other.contains("<Stream"), "{other}");
    stream.stop();
    drop(broken);
    let turned_away = gateway.event("CALL_TURNED_AWAY", 0);
    assert_eq!((&turned_away["call_sid"], &turned_away["reason"]), (&json!("CA2"), &json!("number")));
}

/// Nor has the broken stream a say in what becomes of its call: it makes room at once, and leaves what it knows.
#[test]
fn a_stream_that_broke_unnoticed_does_not_end_a_call_that_has_gone_on_with_another() {
    let (relayed, model) = (Server::start("relay_bot"), Server::start("realtime_server"));
    let twilio = Server::start("carrier_api");
    let sid = "CA00000000000000000000000000000002";
    let known = twilio.url(&format!("/test/calls/{sid}"));
    assert!(run("curl", &["-sf", "-d", "{}", &known]).status.success());
    let serve = format!("{SERVE}api_url = \"{}\"\n[limits]\nmedia_timeout = \"5s\"\n", twilio.url(""));
    let (agent, bot) = bot(&serve);
    let realtime = format!(
        "[dialogue]\nmode = \"realtime\"\n[dialogue.realtime]\nurl = \"ws://127.0.0.1:{}/v1\"\n\
         api_key = \"sk-test\"\nmodel = \"gpt-realtime\"\nvoice = \"marin\"\n",
        model.port
    );
    let others = [relay::config(&relayed, "/burst"), realtime].map(|mode| serve.clone() + &mode);
    for (config, talks) in others.map(|config| (config, false)).into_iter().chain([(bot.config(), true)]) {
        let gateway = Gateway::start_with(&config, PUBLIC, &[TOKEN]);
        if talks {
            gateway.event("PHRASE_RENDERED", 1);
        }
        let first = Call::comes_in(&gateway, sid);
        let mut broken = first.connect(&gateway);
        if talks {
            assert!(length(600).contains(&broken.reply().len()), "the greeting");
            broken.say(&tone(300));
            assert!(length(200).contains(&broken.reply().len()), "an answer");
        }
        // The line has gone, and neither end was told.
        let second = Call::told(sid, &first.goes_on(&gateway));
        let mut stream = second.connect(&gateway);
        stream.media(&tone(100));
        assert_eq!(broken.closed(), 1000);
        let stop = gateway.event("WS_STOP", 0);
        assert_eq!((&stop["stream_sid"], &stop["reason"]), (&json!(broken.stream_sid), &json!("ws_lost")));
        assert_eq!(stop["detail"], "the call has come back with another stream");
        let resumed = gateway.event("CALL_RESUMED", 0);
        assert_eq!((&resumed["call_sid"], &resumed["stream_sid"]), (&json!(sid), &json!(stream.stream_sid)));
        if talks {
            stream.say(&tone(300));
            assert!(length(200).contains(&stream.reply().len()), "an answer");
            assert_eq!((turns(&agent), &resumed["turns"]), (vec![1, 2], &json!(1)));
        }
        assert!(second.goes_on(&gateway).contains("<Stream"), "it was not ended");
        stream.hang_up();
        assert_eq!(twilio.log(), Vec::<Value>::new());
    }
}

/// A bot of the operator's own ends a call by closing its socket, and that is no break.
#[test]
fn a_relayed_call_comes_back_when_its_stream_broke_and_not_when_its_bot_has_left() {
    let (bot, twilio) = (Server::start("relay_bot"), Server::start("carrier_api"));
    let sid = "CA00000000000000000000000000000001";
    let known = twilio.url(&format!("/test/calls/{sid}"));
    assert!(run("curl", &["-sf", "-d", "{}", &known]).status.success());
    for (manner, comes_back) in [("/burst", true), ("/leaves", false)] {
        let config = format!("{SERVE}api_url = \"{}\"\n{}", twilio.url(""), relay::config(&bot, manner));
        let gateway = Gateway::start_with(&config, PUBLIC, &[TOKEN]);
        let call = Call::comes_in(&gateway, sid);
        let mut stream = call.connect(&gateway);
        stream.say(&tone(100));
        if comes_back {
            drop(stream);
        } else {
            assert_eq!(stream.closed(), 1000);
        }
        // Before the stream was closed: what asks for the call to go on may be asked elsewhere.
        let asked: Vec<_> = twilio.log().iter().map(|entry| entry["call_sid"].clone()).collect();
        assert_eq!(asked, vec![sid; usize::from(!comes_back)]);
        let reason = if comes_back { "ws_lost" } else { "bot_end" };
        assert_eq!(gateway.event("WS_STOP", 0)["reason"], reason);
        let twiml = call.goes_on(&gateway);
        assert_eq!((twiml.contains("<Stream"), twiml.contains(OVER)), (comes_back, !comes_back), "{twiml}");
        if comes_back {
            drop(Call::told(sid, &twiml).connect(&gateway));
            assert_eq!(gateway.event("CALL_RESUMED", 0)["call_sid"], sid);
        }
    }
}

/// A call that has lasted long enough is ended for good. One that is heard no more may go on with a stream of another
/// process.
#[test]
fn only_a_call_that_has_lasted_long_enough_is_ended_at_the_carrier() {
    let twilio = Server::start("carrier_api");
    let sid = "CA00000000000000000000000000000003";
    let known = twilio.url(&format!("/test/calls/{sid}"));
    assert!(run("curl", &["-sf", "-d", "{}", &known]).status.success());
    for (limit, asked) in [("media_timeout", 0), ("max_call", 1)] {
        let config = format!("{SERVE}api_url = \"{}\"\n[limits]\n{limit} = \"1s\"\n", twilio.url(""));
        let gateway = Gateway::start_with(&config, PUBLIC, &[TOKEN]);
        let mut stream = Call::comes_in(&gateway, sid).connect(&gateway);
        stream.media(&tone(100));
        assert_eq!(stream.closed(), 1000);
        assert_eq!(gateway.event("WS_STOP", 0)["reason"], "timeout");
        assert_eq!(twilio.log().len(), asked, "{limit}");
    }
}

/// A bot that transfers a call by the carrier's API closes its socket as well, and the carrier's word comes behind.
#[test]
fn a_call_that_a_bot_has_taken_elsewhere_is_not_hung_up() {
    let (bot, twilio) = (Server::start("relay_bot"), Server::start("carrier_api"));
    let config = format!("{SERVE}api_url = \"{}\"\n{}", twilio.url(""), relay::config(&bot, "/leaves"));
    let gateway = Gateway::start_with(&config, PUBLIC, &[TOKEN]);
    let stop = json!({"event": "stop", "streamSid": "MZ1"}).to_string();
    // A machine that was too busy to say it in time has said nothing.
    until("a call that has stopped in time", || {
        let before = gateway.events("WS_STOP").len();
        let call = Call::comes_in(&gateway, "CA00000000000000000000000000000001");
        let mut stream = call.connect(&gateway);
        stream.say(&tone(100));
        gateway.event("BOT_GONE", before);
        std::thread::sleep(Duration::from_millis(800));
        for message in [stream.media_message(&tone(20)), stop.clone()] {
            let _ = stream.ws.send(Message::text(message));
        }
        let reason = gateway.event("WS_STOP", before)["reason"].clone();
        // What would be asked is asked before the stream is closed.
        stream.closed();
        (reason == "caller_hangup").then(|| assert_eq!(twilio.log().len(), before, "it was hung up"))
    });
}

/// Where the app writes the TwiML, it says so itself.
#[test]
fn an_app_says_by_a_parameter_that_the_call_has_been_greeted() {
    let (agent, bot) = bot("");
    let gateway = bot.start();
    gateway.event("PHRASE_RENDERED", 1);
    for (resumed, greeted) in [("", true), ("2", false)] {
        let mut stream = MediaStream::open(&gateway);
        let mut start = stream.start_message();
        start["start"]["customParameters"] = json!({"resumed": resumed});
        stream.send(&start);
        if greeted {
            assert!(length(600).contains(&stream.reply().len()));
        }
        stream.say(&tone(300));
        assert!(length(200).contains(&stream.reply().len()));
        stream.hang_up();
    }
    assert_eq!(turns(&agent), [1, 20_001]);
}
