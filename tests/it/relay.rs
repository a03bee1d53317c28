//! `mode = "relay"`: a bot that was written for Twilio conducts the call from behind the gateway,
//! whatever it sends.

use std::time::Duration;

use voxgate::audio::level;
use voxgate::cli::call::{CallOptions, CallReport, Step, run_call};

use crate::world::{Gateway, LegacyApp, Server, block_on, say, until};

/// A call of that many ms to a bot in this manner; what the caller lived through.
fn call(gateway: &Gateway, ms: u64) -> CallReport {
    let script = vec![Step::Pause(Duration::from_millis(ms)), Step::Hangup];
    block_on(run_call(CallOptions::new(gateway.media()), script)).unwrap()
}

fn gateway(bot: &Server, path: &str) -> Gateway {
    let url = format!("ws://127.0.0.1:{}{path}", bot.port);
    Gateway::start(&format!(
        "[dialogue]\nmode = \"relay\"\n[dialogue.bot]\nurl = \"{url}\"\nsubprotocol = \"audio.twilio.com\"\n"
    ))
}

/// Milliseconds of what the caller heard that were loud.
fn loud_ms(report: &CallReport) -> usize {
    report.heard.chunks(160).filter(|frame| level::rms(frame) > 1_000.0).count() * 20
}

/// The grid of the caller's frames need not be that of its ear: a frame more may be touched.
fn assert_heard(report: &CallReport, ms: usize) {
    let loud = loud_ms(report);
    assert!((ms..=ms + 20).contains(&loud), "{loud} ms were heard, not {ms}");
}

/// What the bot was told in its last call.
fn told(bot: &Server) -> serde_json::Value {
    until("the bot to know the end", || {
        let log = bot.log();
        let told = log.last()?;
        told["events"].as_array()?.contains(&"stop".into()).then(|| told.clone())
    })
}

#[test]
fn a_burst_in_odd_pieces_is_heard_on_the_grid_and_its_mark_comes_back() {
    let bot = Server::start("relay_bot");
    let gateway = gateway(&bot, "/burst");
    let report = call(&gateway, 3_000);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert_heard(&report, 2_000);
    assert!(report.max_lead <= Duration::from_millis(120) + max_late(&report), "{:?} ahead", report.max_lead);
    let told = told(&bot);
    assert_eq!(told["protocol"], "audio.twilio.com");
    assert_eq!(told["marks"][0], "done \"it\"");
    assert_eq!(told["start"]["callSid"], report.call_sid.as_str());
    assert_eq!(told["events"][0], "connected");
    assert_eq!(gateway.event("WS_START", 0)["mode"], "relay");
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["frames_out"]), (&"caller_hangup".into(), &100.into()), "{stop}");
    assert_eq!(gateway.metric("voxgate_calls_active"), 0.0);
}

/// How late the caller itself was: its figures are no better.
fn max_late(report: &CallReport) -> Duration {
    Duration::from_micros(report.own_lateness.max())
}

#[test]
fn a_file_and_binary_frames_are_heard_as_what_they_hold() {
    let bot = Server::start("relay_bot");
    let front = gateway(&bot, "/wav");
    let wav = call(&front, 2_000);
    assert!(wav.violations.is_empty(), "no header reaches the carrier: {:?}", wav.violations);
    assert_heard(&wav, 1_000);
    assert_eq!(told(&bot)["marks"][0], "end");
    let binary = call(&gateway(&bot, "/binary"), 1_500);
    assert!(binary.violations.is_empty(), "{:?}", binary.violations);
    assert_heard(&binary, 500);
}

#[test]
fn a_clear_takes_back_what_was_not_heard_and_gives_the_mark_back() {
    let bot = Server::start("relay_bot");
    let front = gateway(&bot, "/clear");
    let report = call(&front, 2_500);
    assert_eq!(report.clears, 1);
    let loud = loud_ms(&report);
    assert!((500..1_600).contains(&loud), "{loud} ms of five seconds");
    assert_eq!(told(&bot)["marks"][0], "never");
}

#[test]
fn last_words_are_heard_and_then_the_call_ends() {
    let bot = Server::start("relay_bot");
    let gateway = gateway(&bot, "/goodbye");
    let report = call(&gateway, 10_000);
    assert_heard(&report, 1_000);
    let close = report.close.clone().unwrap();
    assert!(close.by_server && close.code == 1000, "{close:?}");
    assert_eq!(gateway.event("WS_STOP", 0)["reason"], "bot_end");
}

#[test]
fn a_bot_that_breaks_off_or_is_not_there_is_an_apology() {
    let bot = Server::start("relay_bot");
    let dies = gateway(&bot, "/dies");
    let nobody =
        Gateway::start("[dialogue]\nmode = \"relay\"\n[dialogue.bot]\nurl = \"ws://127.0.0.1:9/\"\n");
    // An app that answers HTML instead of 101.
    let app = LegacyApp::start();
    let html =
        format!("[dialogue]\nmode = \"relay\"\n[dialogue.bot]\nurl = \"ws://127.0.0.1:{}/x\"\n", app.port);
    for gateway in [dies, nobody, Gateway::start(&html)] {
        let report = call(&gateway, 20_000);
        let apology = voxgate::audio::APOLOGY;
        let heard = report.heard.windows(4_000).any(|heard| heard == &apology[8_000..12_000]);
        assert!(heard, "no apology");
        assert_eq!(report.close.as_ref().map(|close| close.code), Some(1011));
        assert_eq!(gateway.event("WS_STOP", 0)["reason"], "error");
        assert!(gateway.noise().is_empty(), "{:?}", gateway.noise());
    }
}

#[test]
fn what_the_caller_says_reaches_the_bot() {
    let bot = Server::start("relay_bot");
    let gateway = gateway(&bot, "/silent");
    let script = vec![Step::Say(say("please cancel my second order")), Step::Dtmf('5'), Step::Hangup];
    let report = block_on(run_call(CallOptions::new(gateway.media()), script)).unwrap();
    let told = told(&bot);
    let events: Vec<&str> = told["events"].as_array().unwrap().iter().filter_map(|e| e.as_str()).collect();
    assert_eq!(events, ["connected", "start", "media", "dtmf", "media", "stop"], "{}", report.call_sid);
}
