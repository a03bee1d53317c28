//! `mode = "relay"`: a bot that was written for Twilio conducts the call from behind the gateway,
//! whatever it sends.

use std::time::Duration;

use voxgate::audio::level;
use voxgate::cli::call::{CallOptions, CallReport, Step, run_call};

use crate::world::{Gateway, Heard, LegacyApp, MediaStream, Server, block_on, free_port, say, until};

/// A call of that many ms to a bot in this manner; what the caller lived through.
pub(crate) fn call(gateway: &Gateway, ms: u64) -> CallReport {
    let script = vec![Step::Pause(Duration::from_millis(ms)), Step::Hangup];
    block_on(run_call(CallOptions::new(gateway.media()), script)).unwrap()
}

/// How many calls to this upstream came to this.
fn asked(gateway: &Gateway, upstream: &str, result: &str) -> f64 {
    gateway.metric(&format!(
        "voxgate_upstream_requests_total{{kind=\"agent\",result=\"{result}\",upstream=\"{upstream}\"}}"
    ))
}

fn gateway(bot: &Server, path: &str) -> Gateway {
    Gateway::start(&config(bot, path))
}

pub(crate) fn config(bot: &Server, path: &str) -> String {
    let url = format!("ws://127.0.0.1:{}{path}", bot.port);
    format!(
        "[dialogue]\nmode = \"relay\"\n[dialogue.bot]\nurl = \"{url}\"\nsubprotocol = \"audio.twilio.com\"\n"
    )
}

/// Milliseconds of what the caller heard that were loud.
fn loud_ms(report: &CallReport) -> usize {
    report.heard.chunks(160).filter(|frame| level::rms(frame) > 1_000.0).count() * 20
}

/// The grid of the caller's frames need not be that of its ear: a frame more may be touched, and another
/// for each gap that this machine tore.
fn assert_heard(report: &CallReport, ms: usize) {
    let (loud, torn) = (loud_ms(report), report.underruns as usize);
    assert!((ms..=ms + 20 * (1 + torn)).contains(&loud), "{loud} ms were heard, not {ms}; {torn} gaps");
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
    assert_eq!(stop["code"], serde_json::Value::Null, "{stop}");
    assert_eq!(gateway.metric("voxgate_calls_active"), 0.0);
    assert_eq!(asked(&gateway, &format!("127.0.0.1:{}", bot.port), "ok"), 1.0);
}

#[test]
fn what_was_sent_is_counted_of_a_call_that_ends_in_mid_word_too() {
    let bot = Server::start("relay_bot");
    let gateway = gateway(&bot, "/burst");
    call(&gateway, 1_000);
    let sent = gateway.event("WS_STOP", 0)["frames_out"].as_u64().unwrap();
    assert!(sent > 0);
    let told = gateway.events("MEDIA_TX").iter().filter_map(|line| line["frames"].as_u64()).sum::<u64>();
    let counted = gateway.metric("voxgate_media_frames_total{direction=\"out\"}");
    assert_eq!((told, counted), (sent, sent as f64));
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
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["code"]), (&"bot_end".into(), &31921.into()), "{stop}");
    // Without a last word there is nothing to wait for.
    let left = call(&self::gateway(&bot, "/leaves"), 20_000);
    assert!(left.close.unwrap().by_server && left.duration < Duration::from_secs(6), "{:?}", left.duration);
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
        let stop = gateway.event("WS_STOP", 0);
        assert_eq!((&stop["reason"], &stop["code"]), (&"error".into(), &31921.into()), "{stop}");
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

/// It may be of use to the bot all the same, and goes there as it came.
#[test]
fn what_the_carrier_says_amiss_is_counted_and_reaches_the_bot() {
    let bot = Server::start("relay_bot");
    let gateway = gateway(&bot, "/silent");
    let mut caller = MediaStream::start(&gateway);
    caller.text("{\"event\":\"media\"}");
    caller.text("{\"event\":\"media\",\"media\":{\"payload\":\"*\"},\"made\":\"up\"}");
    caller.stop();
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["dropped"], &stop["reason"]), (&2.into(), &"caller_hangup".into()), "{stop}");
    for reason in ["base64", "malformed"] {
        let dropped = format!("voxgate_media_frames_dropped_total{{direction=\"in\",reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&dropped), 1.0, "{reason}");
    }
    assert_eq!(gateway.events("MESSAGE_DROPPED").len(), 1);
    assert_eq!(told(&bot)["events"], serde_json::json!(["connected", "start", "media", "stop"]));
}

#[test]
fn what_is_no_message_is_counted_and_does_no_harm() {
    let bot = Server::start("relay_bot");
    let gateway = gateway(&bot, "/garbage");
    let report = call(&gateway, 2_000);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert_heard(&report, 500);
    let told = told(&bot);
    // A name without end is not kept: its mark comes back at once, and the carrier never has it.
    let marks: Vec<usize> =
        told["marks"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().len()).collect();
    assert_eq!(marks, [100_000, 3]);
    assert_eq!(report.marks_in, 1);
    let dropped = "voxgate_media_frames_dropped_total{direction=\"in\",reason=\"bot_malformed\"}";
    assert!(gateway.metric(dropped) > 10.0);
    assert_eq!(gateway.event("WS_STOP", 0)["reason"], "caller_hangup");
    assert!(gateway.noise().is_empty(), "{:?}", gateway.noise());
}

#[test]
fn a_flood_is_kept_to_ten_minutes_and_can_be_taken_back() {
    let bot = Server::start("relay_bot");
    let gateway = gateway(&bot, "/flood");
    let before = gateway.rss_kib();
    let report = call(&gateway, 6_000);
    assert_eq!(report.clears, 1);
    let end = &report.heard[report.heard.len() - 8_000..];
    let quiet = end.chunks(160).filter(|frame| level::rms(frame) < 100.0).count();
    assert!(quiet > 25, "all is said soon after the flood was taken back");
    assert_eq!(gateway.events("BOT_OVERFLOW").len(), 1);
    assert_eq!(told(&bot)["marks"][0], "never");
    // Ten minutes are 5 MB, a message of a minute another two; and buffers grow by doubling.
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB for 14 MB of audio");
}

#[test]
fn a_bot_that_does_not_read_costs_no_memory_and_is_still_heard() {
    let bot = Server::start("relay_bot");
    let gateway = gateway(&bot, "/deaf");
    let mut caller = MediaStream::start(&gateway);
    let second: Vec<String> = (0..50).map(|_| caller.media_message(&[0xFF; 160])).collect();
    let dropped = "voxgate_media_frames_dropped_total{direction=\"in\",reason=\"bot_slow\"}";
    // What the kernel keeps for the bot comes first.
    let mut speak_until_dropped = |more: f64| {
        until("audio to be dropped", || {
            (0..20).flat_map(|_| &second).for_each(|message| caller.text(message.as_str()));
            (gateway.metric(dropped) > more).then_some(())
        });
        gateway.rss_kib()
    };
    let before = speak_until_dropped(1_000.0);
    let grown = speak_until_dropped(20_000.0).saturating_sub(before);
    assert!(grown < 2 * 1024, "{grown} KiB for 8 MB that nobody reads");
    let mut heard = 0;
    while heard < 25 {
        match caller.hear() {
            Heard::Media(_) => heard += 1,
            Heard::Ping => {}
            other => panic!("{other:?}"),
        }
    }
    caller.stop();
    assert_eq!(gateway.event("WS_STOP", 0)["reason"], "caller_hangup");
}

#[test]
fn a_bot_that_has_stalled_is_given_up_and_a_caller_too() {
    let bot = Server::start("relay_bot");
    let gateway = Gateway::start(&format!(
        "[twilio]\nping_interval = \"5s\"\n[limits]\nmedia_timeout = \"3s\"\n[dialogue]\nmode = \"relay\"\n\
         [dialogue.bot]\nupstream = \"bot\"\npath = \"/silent\"\n\
         [upstreams.bot]\nservers = [\"127.0.0.1:{}\"]\nstall_timeout = \"1s\"\n",
        bot.port
    ));
    let mut silent = MediaStream::start(&gateway);
    silent.media(&[0xFF; 160]);
    assert_eq!(silent.closed(), 1000);
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["code"]), (&"timeout".into(), &31953.into()), "{stop}");
    assert_eq!(gateway.events("MEDIA_STALLED").len(), 1);
    assert_eq!(asked(&gateway, "bot", "ok"), 1.0);

    // The machine is there, and the program is not.
    let report = std::thread::scope(|scope| {
        let call = scope.spawn(|| call(&gateway, 25_000));
        gateway.event("WS_START", 1);
        until("the bot to be called", || bot.log().get(1).filter(|call| !call["start"].is_null()).cloned());
        bot.signal("STOP");
        call.join().unwrap()
    });
    assert_eq!(report.close.as_ref().map(|close| close.code), Some(1011));
    let failed = gateway.event("UPSTREAM_FAILED", 0);
    assert_eq!((&failed["service"], &failed["kind"]), (&"agent".into(), &"timeout".into()));
    assert!(failed["why"].as_str().unwrap().starts_with("your bot: nothing came for "), "{failed}");
    assert_eq!(asked(&gateway, "bot", "timeout"), 1.0);
}

#[test]
fn a_bot_that_is_not_there_is_replaced_by_the_next() {
    let bot = Server::start("relay_bot");
    let gateway = Gateway::start(&format!(
        "[dialogue]\nmode = \"relay\"\n[dialogue.bot]\nupstream = \"bots\"\npath = \"/burst\"\n\
         [upstreams.bots]\nservers = [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n",
        free_port(),
        bot.port
    ));
    for _ in 0..2 {
        assert_heard(&call(&gateway, 3_000), 2_000);
    }
    assert_eq!(gateway.events("UPSTREAM_FAILED").len(), 0);
}
