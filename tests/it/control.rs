//! Calls that the agent ends, puts through or sends keys into, by Twilio's REST API: a fake of it that
//! Twilio's own client has judged is asked, and the test plays the rest of Twilio on the stream.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::world::hearing::{MS, assert_alike};
use crate::world::{Bot, Fake, Gateway, MediaStream, Server, app, block_on, run, say, tone, until, voice};

const PUBLIC: &str = "public_url = \"https://bot.example.com\"";
const TOKEN: (&str, &str) = ("TWILIO_AUTH_TOKEN", "t0ken");

fn carrier() -> &'static Server {
    static CARRIER: OnceLock<Server> = OnceLock::new();
    CARRIER.get_or_init(|| Server::start("carrier_api"))
}

/// `[twilio]`, with more keys.
fn twilio(keys: &str) -> String {
    format!("[twilio]\napi_url = \"{}\"\n{keys}\n", carrier().url(""))
}

/// A call that Twilio knows, with this trouble when it is to be changed.
fn dialled(gateway: &Gateway, trouble: Option<&str>) -> MediaStream {
    let stream = MediaStream::open(gateway);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let known = carrier().url(&format!("/test/calls/{}", stream.call_sid));
    let request = reqwest::Client::new().post(known).body(json!({"trouble": trouble}).to_string());
    block_on(async { request.send().await.unwrap().error_for_status().unwrap() });
    stream
}

/// What Twilio was asked to do with this call.
fn asked(stream: &MediaStream) -> Vec<Value> {
    carrier().log().into_iter().filter(|entry| entry["call_sid"] == *stream.call_sid).collect()
}

/// Waits until Twilio has been asked.
fn changed(stream: &MediaStream) -> Value {
    until("Twilio to be asked", || asked(stream).pop())
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Asserts that Twilio was asked only when this much audio had been played, which began no sooner.
fn assert_heard_first(change: &Value, begun: SystemTime, audio: &[u8]) {
    let played = begun + Duration::from_millis((audio.len() / MS) as u64);
    let came = change["came"].as_f64().unwrap();
    assert!(came >= seconds(played), "{} s too early", seconds(played) - came);
}

/// The line that sums this stream up.
fn stopped(gateway: &Gateway, stream: &MediaStream) -> Value {
    let lines = || gateway.events("WS_STOP").into_iter();
    until("WS_STOP", || lines().find(|line| line["stream_sid"] == *stream.stream_sid))
}

#[test]
fn twilios_own_client_takes_the_fake_for_twilio() {
    // One of its own: the calls that it makes up are nobody else's.
    let fake = Server::start("carrier_api");
    let judged = run("python", &["tests/services/judge_carrier.py", &fake.url("")]);
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(said.lines().count() > 25, "{said}");
}

// ---- everything real but the carrier --------------------------------------------------------------

#[test]
fn a_caller_asks_for_a_person_and_is_put_through() {
    let more = twilio("[twilio.transfer]\ncaller_id = \"+15550123\"\naction = \"/webhook/dial_ended\"");
    let gateway = Gateway::start_with(&Bot { more, ..Bot::real() }.config(), PUBLIC, &[TOKEN]);
    gateway.event("PHRASE_RENDERED", 1);
    let mut stream = dialled(&gateway, None);
    stream.begin();
    stream.say(&say("i want to speak to a person"));
    let begun = SystemTime::now();
    let heard = stream.reply();
    assert_alike(&heard, &voice(&["I am putting you through."]), "the last words");
    let change = changed(&stream);
    assert_heard_first(&change, begun, &heard);
    let number = json!({"is": "Number", "text": "+15550100", "has": []});
    let dial = json!({"is": "Dial", "callerId": "+15550123", "timeout": "30", "text": "", "has": [number],
        "action": "https://bot.example.com/webhook/dial_ended"});
    assert_eq!((&change["status"], &change["twiml"]), (&json!(200), &json!([dial])));
    stream.stop();
    assert_eq!(stream.closed(), 1000);
    assert_eq!(stopped(&gateway, &stream)["reason"], "transfer");
    assert_eq!(gateway.metric("voxgate_calls_total{reason=\"transfer\"}"), 1.0);
    let ok = "voxgate_upstream_requests_total{kind=\"carrier\",result=\"ok\",upstream=\"twilio\"}";
    assert_eq!((gateway.metric(ok), asked(&stream).len()), (1.0, 1));
    assert_eq!(gateway.events("UPSTREAM_FAILED"), [Value::Null; 0]);
}

#[test]
fn a_goodbye_is_heard_and_then_twilio_ends_the_call() {
    let bot = Bot { more: twilio(""), ..Bot::real() };
    let gateway = bot.start_with(&[TOKEN]);
    let mut stream = dialled(&gateway, None);
    stream.begin();
    stream.say(&say("thank you very much goodbye"));
    let begun = SystemTime::now();
    let heard = stream.reply();
    assert_alike(&heard, &voice(&["Thank you for calling.", "Goodbye."]), "the goodbye");
    let change = changed(&stream);
    assert_heard_first(&change, begun, &heard);
    assert_eq!(change["fields"], json!({"Status": "completed"}));
    assert_eq!(stream.closed(), 1000);
    assert_eq!(stopped(&gateway, &stream)["reason"], "bot_end");
}

#[test]
fn keys_are_sent_and_the_call_goes_on_where_it_was() {
    let more = format!("{}[turn]\ngreeting = \"Welcome.\"\n", twilio(""));
    let gateway = Gateway::start_with(&Bot { more, ..Bot::real() }.config(), PUBLIC, &[TOKEN]);
    gateway.event("PHRASE_RENDERED", 1);
    let mut first = dialled(&gateway, None);
    let parameters = json!({"tenant": "blue", "name": "Zoë <\"Z\"> & O'Hara"});
    let begin = |stream: &mut MediaStream| {
        let mut start = stream.start_message();
        start["start"]["customParameters"] = parameters.clone();
        stream.send(&start);
    };
    begin(&mut first);
    assert_alike(&first.reply(), &voice(&["Welcome."]), "the greeting");
    first.say(&say("call me back on monday at three"));
    let begun = SystemTime::now();
    let heard = first.reply();
    assert_alike(&heard, &voice(&["I am pressing the keys."]), "what is announced");
    let change = changed(&first);
    assert_heard_first(&change, begun, &heard);
    let [play, connect] = &change["twiml"].as_array().unwrap()[..] else { panic!("{change}") };
    assert_eq!((&play["is"], &play["digits"]), (&json!("Play"), &json!("1w23#")));
    let stream = &connect["has"][0];
    assert_eq!(stream["url"], "wss://bot.example.com/ws/twilio-media");
    assert_eq!(stream["statusCallback"], "https://bot.example.com/webhook/stream_status");
    let told = stream["has"].as_array().unwrap().iter();
    let told = told.map(|it| (it["name"].as_str().unwrap().to_owned(), it["value"].clone()));
    assert_eq!(Value::Object(told.collect()), parameters);
    first.stop();
    first.closed();
    assert_eq!(stopped(&gateway, &first)["reason"], "send_digits");

    let mut second = MediaStream::open(&gateway);
    second.call_sid.clone_from(&first.call_sid);
    begin(&mut second);
    assert_eq!(gateway.event("CALL_RESUMED", 0)["turns"], 1);
    second.say(&say("hello is anybody there"));
    // Not the greeting again.
    assert_alike(&second.reply(), &voice(&["Yes, I am here."]), "the next answer");
    let turns: Vec<Value> =
        app().agent_log().into_iter().filter(|t| t["body"]["call_sid"] == *first.call_sid).collect();
    let [_, next] = &turns[..] else { panic!("{turns:?}") };
    assert_eq!((&next["body"]["turn"], &next["repeat"]), (&json!(2), &json!(false)));
    assert_eq!(next["body"]["heard"], "I am pressing the keys.");
    assert_eq!(next["body"]["stream_sid"], *second.stream_sid);
    assert_eq!(next["body"]["parameters"], parameters);
    second.hang_up();
}

#[test]
fn an_app_asks_for_digits_and_gets_them() {
    let gateway = Bot::real().start();
    let mut stream = MediaStream::start(&gateway);
    stream.say(&say("call me back on friday at four"));
    assert_alike(&stream.reply(), &voice(&["Please key in your number."]), "the question");
    // Two are wanted, and * ends them.
    "4*".chars().for_each(|key| stream.dtmf(&key.to_string()));
    assert_alike(&stream.reply(), &voice(&["You said: 4."]), "the answer");
    let turns = app().agent_log();
    let keyed =
        turns.iter().find(|turn| turn["body"]["call_sid"] == *stream.call_sid && turn["body"]["turn"] == 2);
    assert_eq!(keyed.unwrap()["body"]["dtmf"], "4");
    stream.hang_up();
}

// ---- when Twilio does not do it -------------------------------------------------------------------

const NOT_THROUGH: &str = "Sorry, I could not put you through.";

/// A gateway whose caller always says hello, and whose agent says this first, and then just hello.
fn gateway(answer: Value, keys: &str) -> (Gateway, Fake) {
    let agent = Fake::start(move |number, _, reply| {
        let hello = json!({"reply": "Hello."});
        reply.whole(
            200,
            "application/json",
            if number == 0 { &answer } else { &hello }.to_string().as_bytes(),
        );
    });
    let tts = Fake::start(|_, asked, reply| {
        let text = serde_json::from_slice::<Value>(&asked.body).unwrap()["text"].clone();
        reply.whole(200, "audio/basic", &tone(if text == NOT_THROUGH { 700 } else { 400 }));
    });
    let bot = Bot {
        stt: format!("url = \"{}\"", Fake::stt("hello").url("/")),
        agent: format!("url = \"{}\"", agent.url("/")),
        tts: format!("url = \"{}\"", tts.url("/")),
        more: twilio(keys),
        ..Bot::at(9)
    };
    let gateway = bot.start_with(&[TOKEN]);
    gateway.event("PHRASE_RENDERED", 1);
    (gateway, agent)
}

#[test]
fn a_call_that_cannot_be_ended_by_twilio_is_ended_all_the_same() {
    let mut failures = 0;
    for trouble in ["gone", "busy", "down", "hangs"] {
        let (gateway, _agent) = gateway(json!({"reply": "Bye.", "action": "hangup"}), "api_timeout = \"1s\"");
        let mut stream = dialled(&gateway, Some(trouble));
        stream.begin();
        stream.say(&tone(600));
        stream.reply();
        assert_eq!(stream.closed(), 1000, "{trouble}");
        assert_eq!(stopped(&gateway, &stream)["reason"], "bot_end", "{trouble}");
        let failed = gateway.events("UPSTREAM_FAILED");
        // What is gone is over.
        assert_eq!(failed.len(), usize::from(trouble != "gone"), "{trouble}: {failed:?}");
        for line in failed {
            failures += 1;
            assert_eq!((&line["service"], &line["upstream"]), (&json!("carrier"), &json!("twilio")));
            let why = line["why"].as_str().unwrap();
            let owner = match trouble {
                "busy" => "the vendor refused: POST http://",
                "down" => "the vendor failed: POST http://",
                _ => "the vendor: POST http://",
            };
            assert!(why.starts_with(owner) && !why.contains("t0ken"), "{trouble}: {why}");
        }
    }
    assert_eq!(failures, 3);
}

#[test]
fn a_caller_who_cannot_be_put_through_is_told_and_the_call_goes_on() {
    let transfer = json!({"reply": "One moment.", "action": "transfer", "to": "+15550100"});
    let (gateway, agent) = gateway(transfer, "");
    let mut stream = dialled(&gateway, Some("down"));
    stream.begin();
    stream.say(&tone(600));
    assert_eq!(stream.reply().len(), 400 * MS);
    assert_eq!(stream.reply().len(), 700 * MS, "{NOT_THROUGH}");
    let failed = gateway.event("UPSTREAM_FAILED", 0);
    assert_eq!((&failed["service"], &failed["kind"]), (&json!("carrier"), &json!("http_5xx")));
    assert!(
        failed["why"].as_str().unwrap().ends_with("answered 500: Internal Server Error (20500)"),
        "{failed}"
    );
    stream.say(&tone(600));
    assert_eq!(stream.reply().len(), 400 * MS);
    let next: Value = serde_json::from_slice(&agent.asked()[1].body).unwrap();
    assert_eq!((&next["action_failed"], &next["heard"]), (&json!("transfer"), &json!(NOT_THROUGH)));
    stream.hang_up();
}

#[test]
fn without_a_way_back_no_keys_are_sent() {
    let (gateway, _agent) = gateway(json!({"action": "send_digits", "digits": "1"}), "");
    let mut stream = dialled(&gateway, None);
    stream.begin();
    stream.say(&tone(600));
    // The apology.
    stream.reply();
    let why = gateway.event("UPSTREAM_FAILED", 0)["why"].as_str().unwrap().to_owned();
    assert!(why.starts_with("your config: [server] public_url: not set"), "{why}");
    assert_eq!(asked(&stream), [Value::Null; 0]);
    stream.hang_up();
}
