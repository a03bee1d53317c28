//! Tapes of calls that a bot or a model conducts: what there is to see of them later, and what is not
//! to be known.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use voxgate::cli::call::CallReport;
use voxgate::tape::{Entry, Tape};

use crate::tapes::{Folder, answer, replayed, told};
use crate::world::{Gateway, MediaStream, Server, of_call, until};
use crate::{realtime, relay};

/// The only tape there is, once it is written.
fn written(folder: &Folder, gateway: &Gateway) -> Vec<u8> {
    gateway.event("TAPE_WRITTEN", 0);
    fs::read(&folder.tapes()[0]).unwrap()
}

fn path(folder: &Folder) -> String {
    folder.tapes()[0].to_str().unwrap().to_owned()
}

fn count(tape: &Tape<'_>, of: fn(&Entry<'_>) -> bool) -> u64 {
    tape.entries.iter().filter(|(_, entry)| of(entry)).count() as u64
}

/// Both directions are there to the byte, and a replay says what the log said, twice the same.
fn assert_as_it_was(folder: &Folder, gateway: &Gateway, report: &CallReport) -> String {
    let bytes = written(folder, gateway);
    let tape = Tape::read(&bytes).unwrap();
    assert_eq!(tape.missing(), None);
    let heard = count(&tape, |entry| entry.audio().is_some());
    // What came when the call had been ended here was not heard any more.
    let by_caller = tape.entries.iter().any(|(_, entry)| *entry == Entry::Stop("caller_hangup".into()));
    assert!(heard == report.frames_out || (heard < report.frames_out && !by_caller), "{heard}: {report:?}");
    assert_eq!(count(&tape, |entry| matches!(entry, Entry::Play(_))), report.frames_in);
    let log: Vec<String> = of_call(gateway.log(), report).iter().filter_map(told).collect();
    let shown = answer(&["replay", &path(folder)]);
    let timeline: Vec<String> = shown.lines().filter_map(|line| replayed(line, &log)).collect();
    let plain: Vec<String> = log.iter().map(|line| line.replace('"', "")).collect();
    let timeline: Vec<String> = timeline.iter().map(|line| line.replace('"', "")).collect();
    assert_eq!(timeline, plain, "{shown}");
    assert!(!shown.contains("not as recorded"), "{shown}");
    assert_eq!(answer(&["replay", &path(folder)]), shown, "to the byte");
    shown
}

/// What a replay with this configuration says, as text and as JSON.
fn otherwise(folder: &Folder, config: &str) -> (String, Value) {
    let file = folder.0.join("other.toml");
    fs::write(&file, config).unwrap();
    let args = ["replay", &path(folder), "--config", file.to_str().unwrap()];
    let json = answer(&[&args[..], &["--json"]].concat());
    (answer(&args), serde_json::from_str(&json).unwrap())
}

fn picture(folder: &Folder) -> String {
    let out = folder.0.join("call.svg");
    answer(&["tune", &path(folder), "--out", out.to_str().unwrap()]);
    fs::read_to_string(out).unwrap()
}

#[test]
fn a_bots_call_is_on_tape_with_what_the_bot_sent_and_what_was_made_of_it() {
    let bot = Server::start("relay_bot");
    let folder = Folder::new("of-a-bot");
    let gateway = Gateway::start(&(relay::config(&bot, "/burst") + &folder.config()));
    let report = relay::call(&gateway, 3_000);
    let shown = assert_as_it_was(&folder, &gateway, &report);
    assert!(shown.contains(": relay, "), "{shown}");
    for line in ["BOT_MARK name=\"done \\\"it\\\"\"", "MEDIA_TX frames=100 ms=2000", "MARK_PLAYED name="] {
        assert!(shown.contains(line), "{line} is missing: {shown}");
    }
    let bytes = written(&folder, &gateway);
    let tape = Tape::read(&bytes).unwrap();
    let said = tape.entries.iter().filter_map(|(_, entry)| match entry {
        Entry::BotAudio(audio) => Some(audio.len()),
        _ => None,
    });
    assert_eq!(said.sum::<usize>(), 16_000);

    let (text, json) = otherwise(&folder, "[turn]\neou_ms = 900\n");
    assert!(text.contains("  not compared: a bot of its own conducts this call"), "{text}");
    assert!(!text.contains("recorded"), "there is no table: {text}");
    assert_eq!(json["now"]["seconds"], 0.0);
    assert_eq!(json["tapes"][0]["changed"], Value::Null);
    let svg = picture(&folder);
    for part in ["A bot of its own conducts this call", "bot, as heard", "caller"] {
        assert!(svg.contains(part), "{part} is missing");
    }
    assert!(!svg.contains("vad_rms</") && !svg.contains("noise floor"), "nobody measured that");
    let suggested = answer(&["tune", "--suggest", folder.0.to_str().unwrap()]);
    assert!(suggested.contains("Left out: 1 tapes of calls that a model or a bot conducts"), "{suggested}");
}

#[test]
fn a_bots_call_that_ends_in_mid_word_is_the_same_again() {
    let bot = Server::start("relay_bot");
    let folder = Folder::new("of-a-bot-cut-short");
    let gateway = Gateway::start(&(relay::config(&bot, "/burst") + &folder.config()));
    relay::call(&gateway, 1_000);
    written(&folder, &gateway);
    let sent = gateway.event("MEDIA_TX", 0)["frames"].as_u64().unwrap();
    let shown = answer(&["replay", &path(&folder)]);
    assert!(
        shown.contains(&format!("MEDIA_TX frames={sent} ")) && !shown.contains("not as recorded"),
        "{shown}"
    );
}

#[test]
fn what_a_bot_takes_back_and_how_it_breaks_off_is_on_tape() {
    let bot = Server::start("relay_bot");
    for (manner, ms, lines) in [
        ("/clear", 2_500, &["BOT_CLEAR", "reason=\"caller_hangup\""][..]),
        ("/goodbye", 20_000, &["BOT_GONE code=1000", "reason=\"bot_end\""]),
        ("/dies", 20_000, &["UPSTREAM_FAILED", "your bot: it broke off", "reason=\"error\""]),
    ] {
        let folder = Folder::new(&format!("of-a-bot{}", manner.replace('/', "-")));
        let gateway = Gateway::start(&(relay::config(&bot, manner) + &folder.config()));
        let shown = assert_as_it_was(&folder, &gateway, &relay::call(&gateway, ms));
        for line in lines {
            assert!(shown.contains(line), "{manner}: {line} is missing: {shown}");
        }
    }
}

/// As the gateways of the tests of realtime are.
const AS_IT_WAS: &str = "[turn]\nvad = \"rms\"\nvad_rms = 300\n[playout]\nlead_ms = 100\n";

#[test]
fn a_models_call_by_our_ear_is_run_again_until_it_would_go_another_way() {
    let server = Server::start("realtime_server");
    let folder = Folder::new("of-a-model");
    let keys = format!("turn_detection = \"none\"\n{}", folder.config());
    let gateway = realtime::gateway(server.port, 100, &keys);
    let report = realtime::call(&gateway, realtime::interrupts(realtime::TABLE, realtime::HOURS).to_vec());
    let shown = assert_as_it_was(&folder, &gateway, &report);
    assert!(shown.contains(": realtime, ") && shown.contains("barge-ins 1"), "{shown}");
    let bytes = written(&folder, &gateway);
    let tape = Tape::read(&bytes).unwrap();
    let measured = |entry: &Entry<'_>| matches!(entry, Entry::Heard { frames, .. } if !frames.is_empty());
    // What is shorter than a frame makes none whole.
    assert!((0..=1).contains(&(report.frames_out - count(&tape, measured))), "{report:?}");
    assert!(count(&tape, |entry| matches!(entry, Entry::Spoken(_))) > 0);

    let (text, json) = otherwise(&folder, AS_IT_WAS);
    assert!(text.contains("  the call goes as recorded"), "{text}");
    assert_eq!(json["tapes"][0]["forked_ms"], Value::Null);
    // Who waits longer is at the end of the first utterance, and nowhere else, at another place.
    let (text, json) = otherwise(&folder, &AS_IT_WAS.replace("[turn]", "[turn]\neou_ms = 900"));
    assert!(text.contains("  not compared: what the model would have said"), "{text}");
    assert_eq!(json["tapes"][0]["changed"][0]["setting"], "endpointing.eou");
    let first = shown.lines().find(|line| line.contains("UTTERANCE_ENDED")).unwrap();
    let ended: f64 = first.split_whitespace().next().unwrap().parse().unwrap();
    let forked = json["tapes"][0]["forked_ms"].as_f64().unwrap() / 1e3;
    assert!((forked - ended).abs() < 0.1, "{forked} s: {shown}");
    let svg = picture(&folder);
    for part in ["By this side's ear", "counts as speech", "bot, taken back", "barge-in: voice"] {
        assert!(svg.contains(part), "{part} is missing");
    }
}

#[test]
fn a_models_call_by_its_own_ear_is_on_tape() {
    let server = Server::start("realtime_server");
    let folder = Folder::new("of-a-models-ear");
    let keys = format!("transcription = {{ model = \"whisper-1\" }}\n{}", folder.config());
    let gateway = realtime::gateway(server.port, 100, &keys);
    let report = realtime::call(&gateway, realtime::says(realtime::HOURS).to_vec());
    let shown = assert_as_it_was(&folder, &gateway, &report);
    assert!(shown.contains("turns 1 (1 answered"), "{shown}");
    assert!(answer(&["replay", "--transcripts", &path(&folder)]).contains("what are your opening hours"));
    let svg = picture(&folder);
    assert!(svg.contains("By the model's ear") && svg.contains("bot, as heard"), "{svg}");
}

/// Kills the gateway as soon as so many frames were played of what is said, and reads what is left.
fn killed(mut gateway: Gateway, folder: &Folder, frames: u64) -> String {
    let mut stream = MediaStream::start(&gateway);
    until("what is said on the tape", || {
        for _ in 0..5 {
            stream.media(&[0xFF; 160]);
            std::thread::sleep(Duration::from_millis(20));
        }
        let bytes = fs::read(folder.tapes().first()?).ok()?;
        let played = count(&Tape::read(&bytes).ok()?, |entry| matches!(entry, Entry::Play(_)));
        (played >= frames).then_some(())
    });
    gateway.signal("KILL");
    gateway.ended();
    let bytes = fs::read(Path::new(&path(folder))).unwrap();
    let missing = Tape::read(&bytes).unwrap().missing().unwrap();
    assert!(missing.contains("in mid-call") || missing.contains("torn off"), "{missing}");
    let shown = answer(&["replay", &path(folder)]);
    assert!(shown.contains(&missing) && !shown.contains("not as recorded"), "{shown}");
    shown
}

#[test]
fn tapes_of_others_survive_the_death_of_the_gateway() {
    let (bot, folder) = (Server::start("relay_bot"), Folder::new("bot-killed"));
    let gateway = Gateway::start(&(relay::config(&bot, "/burst") + &folder.config()));
    let shown = killed(gateway, &folder, 100);
    assert!(shown.contains("BOT_MARK name=\"done \\\"it\\\"\""), "{shown}");
    let (server, folder) = (Server::start("realtime_server"), Folder::new("model-killed"));
    let keys = format!("speaks_first = true\n{}", folder.config());
    let shown = killed(realtime::gateway(server.port, 100, &keys), &folder, 25);
    assert!(shown.contains("FIRST_FRAME greeting=true"), "{shown}");
}
