//! Tests of `caller`.

use super::*;
use crate::audio::SILENCE;
use crate::cli::call::carrier::{MarksMode, MarksOnClear};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::protocol::Role;

type Server = WebSocketStream<DuplexStream>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn voice(ms: usize) -> Arc<[u8]> {
    vec![0x90; ms * 8].into()
}

fn text(value: &Value) -> Message {
    Message::text(value.to_string())
}

fn media(sid: &str, audio: &[u8]) -> Message {
    text(&json!({"event": "media", "streamSid": sid, "media": {"payload": STANDARD.encode(audio)}}))
}

/// Runs a script against a server in memory and in virtual time; returns the report and whatever the
/// server returned.
async fn call<T, F>(
    options: CallOptions,
    script: Vec<Step>,
    server: impl FnOnce(Server) -> F,
) -> (CallReport, T)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    let server = tokio::spawn(server(WebSocketStream::from_raw_socket(theirs, Role::Server, None).await));
    let report = Talk::new(client, options, script, &mut |_| {}).run().await;
    (report, server.await.unwrap())
}

/// Answers 407 ms (off the caller's grid) after the last voiced frame with `reply` frames, four of them ahead and the rest one
/// every 20 ms, then a mark; on speech during the reply, sends `clear` with the tenth voiced frame.
/// Returns every message of the carrier but media.
async fn bot(mut socket: Server, reply: u64) -> Vec<Value> {
    let (mut sid, mut other) = (String::new(), Vec::new());
    let (mut left, mut voiced) = (0, 0u32);
    let (mut next, mut answer_at): (Option<Instant>, Option<Instant>) = (None, None);
    loop {
        let wake = [next, answer_at].into_iter().flatten().min();
        let sleep = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {
                let frames = if answer_at.take().is_some() { left = reply; 4 } else { 1 };
                for _ in 0..frames {
                    socket.send(media(&sid, &[0xA0; 160])).await.unwrap();
                    left -= 1;
                }
                next = wake.map(|at| at + FRAME).filter(|_| left > 0);
                if left == 0 {
                    let mark = json!({"event": "mark", "streamSid": sid, "mark": {"name": "end"}});
                    socket.send(text(&mark)).await.unwrap();
                }
            }
            message = socket.next() => {
                let Some(Ok(Message::Text(message))) = message else { return other };
                let message: Value = serde_json::from_str(&message).unwrap();
                if message["event"] != "media" {
                    sid = message["streamSid"].as_str().unwrap_or_default().to_owned();
                    other.push(message);
                    continue;
                }
                let audio = STANDARD.decode(message["media"]["payload"].as_str().unwrap()).unwrap();
                if audio[0] == SILENCE {
                    voiced = 0;
                    continue;
                }
                voiced += 1;
                if next.is_some() && voiced == 10 {
                    next = None;
                    socket.send(text(&json!({"event": "clear", "streamSid": sid}))).await.unwrap();
                }
                answer_at = next.is_none().then(|| Instant::now() + ms(407));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_measured_and_its_mark_returned_when_it_has_played() {
    let script =
        vec![Step::Say(voice(200)), Step::Dtmf('7'), Step::wait_for_reply_end(ms(5_000)), Step::Hangup];
    let options = CallOptions { parameters: vec![("k".into(), "v".into())], ..CallOptions::new("") };
    let (report, seen) = call(options, script, |socket| bot(socket, 50)).await;
    assert_eq!(report.problem(), None, "{report:?}");
    let turn = &report.turns[0];
    assert!((ms(402)..ms(412)).contains(&turn.latency().unwrap()), "{turn:?}");
    assert!(!turn.early && !turn.interrupts);
    assert_eq!((report.frames_in, report.bytes_in, report.underruns), (50, 8_000, 0));
    assert_eq!((report.marks_in, report.marks_out), (1, 1));
    assert!((ms(60)..=ms(80)).contains(&report.max_lead), "{:?}", report.max_lead);
    assert!(report.lateness.max() < 3_000 && report.own_lateness.max() < 3_000);
    // 50 frames are heard, in one piece, from the reply on.
    let spurt = report.spurts[0];
    assert_eq!((report.spurts.len(), spurt.end - spurt.start), (1, ms(1_000)));
    let at = spurt.start.as_millis() as usize * 8;
    assert!(report.heard[at + 8..at + 7_990].iter().all(|&b| b == 0xA0));
    assert_eq!(report.heard.iter().filter(|&&b| b == 0xA0).count(), 8_000);

    let events: Vec<&str> = seen.iter().map(|m| m["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["connected", "start", "dtmf", "mark", "stop"]);
    assert_eq!(seen[1]["start"]["customParameters"], json!({"k": "v"}));
    let mark = report.timeline.iter().find(|m| matches!(m.what, What::MarkReturned(_))).unwrap();
    let late = ms(mark.ms).abs_diff(spurt.end);
    assert!(late <= ms(2), "mark at {} ms, audio until {:?}", mark.ms, spurt.end);
    // Every message but `connected` is numbered: the last number is the count.
    let numbered = report.frames_out + 4;
    assert_eq!(seen[4]["sequenceNumber"], numbered.to_string());
}

#[tokio::test(start_paused = true)]
async fn an_interruption_is_timed_to_its_clear() {
    let script = vec![
        Step::Say(voice(200)),
        Step::Interrupt { after: ms(300), audio: voice(500), timeout: ms(5_000) },
        Step::wait_for_reply_end(ms(5_000)),
    ];
    let (report, seen) = call(CallOptions::new(""), script, |socket| bot(socket, 100)).await;
    assert_eq!(report.problem(), None, "{report:?}");
    assert_eq!((report.turns.len(), report.clears), (2, 1));
    assert!(report.turns[1].interrupts);
    let barge_in = &report.barge_ins[0];
    // The tenth frame goes out 180 ms after the first.
    assert!((ms(178)..ms(190)).contains(&barge_in.clear.unwrap()), "{barge_in:?}");
    assert!((ms(178)..ms(190)).contains(&barge_in.heard_after.unwrap()), "{barge_in:?}");
    assert!((ms(402)..ms(412)).contains(&report.turns[1].latency().unwrap()), "{report:?}");
    assert_eq!(seen.iter().filter(|m| m["event"] == "mark").count(), 1, "the first reply sent no mark");
}

#[tokio::test(start_paused = true)]
async fn marks_pending_at_clear_come_back_or_do_not() {
    for (marks, on_clear, back) in [
        (MarksMode::Normal, MarksOnClear::Return, 1),
        (MarksMode::Normal, MarksOnClear::Drop, 0),
        (MarksMode::Never, MarksOnClear::Return, 0),
    ] {
        let mut options = CallOptions::new("");
        options.carrier = CarrierOptions { marks, on_clear, ..CarrierOptions::default() };
        let server = |mut socket: Server| async move {
            let sid = sid_of(&mut socket).await;
            socket.send(media(&sid, &[0xA0; 8_000])).await.unwrap();
            let mark = json!({"event": "mark", "streamSid": sid, "mark": {"name": "m"}});
            socket.send(text(&mark)).await.unwrap();
            socket.send(text(&json!({"event": "clear", "streamSid": sid}))).await.unwrap();
            let mut marks = 0;
            while let Some(Ok(message)) = socket.next().await {
                marks += u32::from(message.to_text().unwrap_or("").contains("\"mark\""));
            }
            marks
        };
        let (report, returned) = call(options, vec![Step::Pause(ms(2_000))], server).await;
        assert_eq!((returned, report.marks_out), (back, u64::from(back)), "{marks:?} {on_clear:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_missed_in_a_stall_are_made_up_for() {
    let stalls = |mut socket: Server| async move {
        sid_of(&mut socket).await;
        tokio::time::advance(ms(305)).await;
        while socket.next().await.is_some() {}
    };
    let (report, ()) = call(CallOptions::new(""), vec![Step::Pause(ms(2_000))], stalls).await;
    let sent = ms(report.frames_out * 20);
    assert!(report.duration.abs_diff(sent) <= ms(20), "{sent:?} of {:?}", report.duration);
    assert!(report.own_lateness.max() >= 280_000, "{}", report.own_lateness.max());
}

/// Reads up to `start` and returns the stream's name.
async fn sid_of(socket: &mut Server) -> String {
    loop {
        let message = socket.next().await.unwrap().unwrap();
        let message: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if message["event"] == "start" {
            return message["streamSid"].as_str().unwrap().to_owned();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_twilio_would_not_take_is_reported_and_the_call_goes_on() {
    let server = |mut socket: Server| async move {
        socket.send(Message::text("early")).await.unwrap();
        let sid = sid_of(&mut socket).await;
        socket.send(Message::binary(vec![0xFF; 160])).await.unwrap();
        socket.send(text(&json!({"event": "keepalive"}))).await.unwrap();
        socket.send(media("MZ0", &[0xFF; 160])).await.unwrap();
        socket.send(media(&sid, b"RIFF\0\0\0\0WAVE")).await.unwrap();
        socket.send(media(&sid, &vec![0xFF; 11 * 60 * 8_000])).await.unwrap();
        socket.send(Message::Ping("are you there".into())).await.unwrap();
        let mut pong = None;
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Pong(payload) = message {
                pong = Some(payload);
            }
        }
        pong
    };
    let (report, pong) = call(CallOptions::new(""), vec![Step::Pause(ms(500))], server).await;
    let codes: Vec<u16> = report.violations.iter().map(|v| v.code).collect();
    assert_eq!(codes, [31_951, 31_950, 31_951, 31_951, 0, 31_931]);
    assert_eq!(pong.as_deref(), Some(&b"are you there"[..]));
    assert_eq!(report.pings, 1);
    assert!(report.problem().unwrap().starts_with("6 messages that Twilio would not take"));
    assert_eq!(report.close.unwrap().code, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_or_falls_silent_has_not_served_the_call() {
    let closes = |mut socket: Server| async move {
        sid_of(&mut socket).await;
        let frame = CloseFrame { code: CloseCode::Error, reason: "oh".into() };
        socket.close(Some(frame)).await.unwrap();
        while socket.next().await.is_some() {}
    };
    let (report, ()) = call(CallOptions::new(""), vec![Step::Pause(ms(900))], closes).await;
    assert_eq!(report.close, Some(Close { code: 1011, reason: "oh".into(), by_server: true }));
    assert!(report.problem().unwrap().contains("1011 \"oh\" (Twilio: 31921)"));

    let goodbye = |mut socket: Server| async move {
        sid_of(&mut socket).await;
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        socket.close(Some(frame)).await.unwrap();
        while socket.next().await.is_some() {}
    };
    let (report, ()) = call(CallOptions::new(""), vec![Step::Pause(ms(900))], goodbye).await;
    assert_eq!(report.problem(), None, "the bot may hang up");
    let script = vec![Step::Pause(ms(900)), Step::Say(voice(100))];
    let (report, ()) = call(CallOptions::new(""), script, goodbye).await;
    assert!(report.problem().is_some(), "but not before the caller has spoken");

    let drops = |mut socket: Server| async move { _ = sid_of(&mut socket).await };
    let (report, ()) = call(CallOptions::new(""), vec![Step::Pause(ms(900))], drops).await;
    assert_eq!(report.close.map(|close| close.code), Some(1006));

    let silent = |mut socket: Server| async move { while socket.next().await.is_some() {} };
    let script = vec![Step::Say(voice(100)), Step::WaitForReplyStart { timeout: ms(1_000) }];
    let (report, ()) = call(CallOptions::new(""), script, silent).await;
    assert!(report.problem().unwrap().contains("101 and silence"), "{:?}", report.problem());

    let deaf = |socket: Server| async move {
        tokio::time::sleep(ms(60_000)).await;
        drop(socket);
    };
    let (report, ()) = call(CallOptions::new(""), vec![Step::Pause(ms(30_000))], deaf).await;
    assert!(report.problem().unwrap().contains("stopped reading"), "{:?}", report.problem());
}

/// Over a real socket and the real clock: the one test that also takes the road through `run_call`.
#[tokio::test]
async fn an_echo_server_is_heard_over_tcp() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws/twilio-media", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let mut sid = String::new();
        while let Some(Ok(Message::Text(message))) = socket.next().await {
            let message: Value = serde_json::from_str(&message).unwrap();
            if let Some(payload) = message["media"]["payload"].as_str() {
                let payload = STANDARD.decode(payload).unwrap();
                socket.send(media(&sid, &payload)).await.unwrap();
            } else {
                sid = message["streamSid"].as_str().unwrap_or_default().to_owned();
            }
        }
    });
    let quiet = Step::WaitForReplyEnd { quiet: ms(100), timeout: ms(5_000) };
    let report = run_call(CallOptions::new(url), vec![Step::Say(voice(200)), quiet]).await.unwrap();
    assert_eq!(report.problem(), None, "{report:?}");
    assert!(report.turns[0].early);
    assert_eq!(report.heard.iter().filter(|&&b| b == 0x90).count(), 1_600);
    assert!(report.frames_in + 2 >= report.frames_out, "{} of {}", report.frames_in, report.frames_out);
    assert!(matches!(report.timeline.last().unwrap().what, What::Closed(_)));
}
