//! `[recording]`, `voxgate replay` and `voxgate tune`: calls that are written down, survive whatever
//! happens to the gateway, and are run again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use voxgate::cli::call::{CallOptions, Step, run_call};
use voxgate::tape::{Entry, Tape};

use crate::world::{
    self, Bot, Gateway, Heard, MediaStream, block_on, call, of_call, project, say, tone, until,
};

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("voxgate-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    pub(crate) fn config(&self) -> String {
        format!("[recording]\nfolder = \"{}\"\n", self.0.display())
    }

    pub(crate) fn tapes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).into_iter().flatten();
        let mut tapes: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        tapes.retain(|path| path.extension().is_some_and(|ending| ending == "tape"));
        tapes.sort();
        tapes
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn voxgate(args: &[&str]) -> Output {
    world::voxgate().args(args).current_dir(project()).output().unwrap()
}

pub(crate) fn answer(args: &[&str]) -> String {
    let output = voxgate(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Event, and the fields of the log that a timeline has too.
pub(crate) fn told(line: &Value) -> Option<String> {
    let name = line["message"].as_str()?;
    let fields: &[&str] = match name {
        "STATE" => &["from", "to", "why"],
        "TURN" => &["turn", "result"],
        "MEDIA_TX" => &["frames", "ms"],
        "BARGE_IN" => &["reaction_ms", "cleared_ms"],
        "TTS_LEN_ms" => &["ms"],
        "WS_STOP" => &["turns", "barge_ins", "frames_in", "frames_out", "reason"],
        _ => return None,
    };
    Some(fields.iter().fold(name.to_owned(), |told, field| format!("{told} {field}={}", line[field])))
}

/// The same of a line of a timeline.
pub(crate) fn replayed(line: &str, like: &[String]) -> Option<String> {
    let event = line.split_whitespace().nth(1)?;
    let like = like.iter().find(|told| told.starts_with(&format!("{event} ")))?;
    let names = like.split(' ').skip(1).filter_map(|field| field.split('=').next());
    let field =
        |name: &str| line.split(' ').find(|word| word.starts_with(&format!("{name}="))).unwrap_or_default();
    Some(names.fold(event.to_owned(), |told, name| format!("{told} {}", field(name))))
}

#[test]
fn a_recorded_call_is_replayed_as_it_was() {
    let folder = Folder::new("replayed");
    let gateway = Gateway::start(&folder.config());
    let limit = Duration::from_secs(20);
    let script = vec![
        Step::Say(tone(400)),
        Step::wait_for_reply_end(limit),
        Step::Say(tone(1_500)),
        // Later than 600 ms, when it would be a collision and no turn of its own.
        Step::Interrupt { after: Duration::from_millis(800), audio: tone(600), timeout: limit },
        Step::wait_for_reply_end(limit),
    ];
    let report = block_on(run_call(CallOptions::new(gateway.media()), script)).unwrap();
    let written = gateway.event("TAPE_WRITTEN", 0);
    assert_eq!(written["call_sid"], report.call_sid.as_str());
    let tapes = folder.tapes();
    assert_eq!(written["path"], text(&tapes[0]));
    assert!(text(&tapes[0]).ends_with(&format!("Z_{}.tape", report.call_sid)), "{tapes:?}");
    let meta = fs::metadata(&tapes[0]).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&folder.0).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(written["bytes"], meta.len());
    assert_eq!(gateway.metric("voxgate_recordings_total{result=\"written\"}"), 1.0);
    assert_eq!(gateway.metric("voxgate_recording_bytes_total"), meta.len() as f64);

    // What the caller said and heard is there, to the byte.
    let bytes = fs::read(&tapes[0]).unwrap();
    let tape = Tape::read(&bytes).unwrap();
    assert_eq!(tape.missing(), None);
    let count =
        |of: fn(&Entry<'_>) -> bool| tape.entries.iter().filter(|(_, entry)| of(entry)).count() as u64;
    assert_eq!(count(|entry| entry.audio().is_some()), report.frames_out);
    assert_eq!(count(|entry| matches!(entry, Entry::Play(_))), report.frames_in);
    assert_eq!(
        count(|entry| matches!(entry, Entry::Heard { frames, .. } if frames.len() == 21)),
        report.frames_out
    );

    let log: Vec<String> = gateway.log().iter().filter_map(told).collect();
    let shown = answer(&["replay", text(&tapes[0])]);
    let timeline: Vec<String> = shown.lines().filter_map(|line| replayed(line, &log)).collect();
    let plain = |told: &[String]| told.iter().map(|line| line.replace('"', "")).collect::<Vec<_>>();
    assert_eq!(plain(&timeline), plain(&log), "{shown}");
    assert!(!shown.contains("not as recorded"), "{shown}");
    assert!(shown.contains("turns 3 (2 answered, 1 interrupted, 0 empty, 0 failed)"), "{shown}");
    assert_eq!(answer(&["replay", text(&tapes[0])]), shown, "to the byte");
    let anew = answer(&["replay", "--anew", text(&tapes[0])]);
    let note = "  measured anew from the audio, not as the tape says\n";
    assert_eq!(anew.replace(note, ""), shown, "the detector measures what it measured then");
    assert_ne!(anew, shown);

    // A caller who may not interrupt hears the second reply to its end.
    let other = folder.0.join("other.toml");
    fs::write(&other, "[turn]\nvad = \"rms\"\nbarge_in = false\n").unwrap();
    let json = answer(&["replay", text(&folder.0), "--config", text(&other), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["recorded"]["barge_ins"], 1);
    assert_eq!(json["now"]["barge_ins"], 0);
    assert_eq!(json["tapes"][0]["changed"][0]["setting"], "barge_in");
    assert!(json["tapes"][0]["forked_ms"].as_u64().unwrap() > 3_000, "{json}");
}

#[test]
fn a_recorded_dialogue_is_replayed_as_it_was() {
    let folder = Folder::new("dialogue");
    let mut bot = Bot::real();
    bot.lead_ms = 100;
    bot.more = folder.config();
    let gateway = bot.start();
    let limit = Duration::from_secs(20);
    let script = vec![
        Step::Say(say("what are your opening hours tomorrow")),
        Step::wait_for_reply_end(limit),
        Step::Say(say("please cancel my second order")),
        Step::Interrupt { after: Duration::from_millis(700), audio: say("no that is wrong"), timeout: limit },
        Step::wait_for_reply_end(limit),
    ];
    let report = call(&gateway, script);
    gateway.event("TAPE_WRITTEN", 0);
    let log: Vec<String> = of_call(gateway.log(), &report).iter().filter_map(told).collect();
    let tapes = folder.tapes();
    let shown = answer(&["replay", text(&tapes[0])]);
    let timeline: Vec<String> = shown.lines().filter_map(|line| replayed(line, &log)).collect();
    let plain = |told: &[String]| told.iter().map(|line| line.replace('"', "")).collect::<Vec<_>>();
    assert_eq!(plain(&timeline), plain(&log), "{shown}");
    assert!(!shown.contains("not as recorded"), "{shown}");
    assert!(!shown.contains("order") && !shown.contains("text="), "words are shown: {shown}");
    let shown = answer(&["replay", "--transcripts", text(&tapes[0])]);
    assert!(shown.contains("please cancel my second order"), "{shown}");

    // A gateway that waits longer asks the same, later, and gets the same answers.
    let other = folder.0.join("other.toml");
    fs::write(&other, "[turn]\nvad = \"rms\"\neou_ms = 700\n").unwrap();
    let json = answer(&["replay", text(&tapes[0]), "--config", text(&other), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let (then, now) = (&json["recorded"]["first_frame_ms"], &json["now"]["first_frame_ms"]);
    let later = now["p50"].as_i64().unwrap() - then["p50"].as_i64().unwrap();
    assert!((200..500).contains(&later), "{json}");
    assert!(json["tapes"][0]["answers"]["moved"].as_u64().unwrap() > 0, "{json}");
}

#[test]
fn a_tape_survives_the_death_of_the_gateway() {
    let folder = Folder::new("killed");
    let mut gateway = Gateway::start(&folder.config());
    let mut stream = MediaStream::start(&gateway);
    let said = tone(300);
    stream.say(&said);
    let heard = stream.reply();
    // Silence as a telephone sends it, until the writer has had its turn: half a second is kept back.
    let tape = until("a tape", || folder.tapes().pop());
    until("the reply on the tape", || {
        for _ in 0..5 {
            stream.media(&[0xFF; 160]);
            std::thread::sleep(Duration::from_millis(20));
        }
        let bytes = fs::read(&tape).unwrap();
        let tape = Tape::read(&bytes).ok()?;
        let last = tape.entries.iter().rev().find(|(_, entry)| matches!(entry, Entry::Mark(_)))?;
        matches!(&last.1, Entry::Mark(name) if name.ends_with(".end")).then_some(())
    });
    gateway.signal("KILL");
    gateway.ended();
    let bytes = fs::read(&tape).unwrap();
    let read = Tape::read(&bytes).unwrap();
    let missing = read.missing().unwrap();
    assert!(missing.contains("in mid-call") || missing.contains("torn off"), "{missing}");
    let played: usize = read.entries.iter().filter(|(_, entry)| matches!(entry, Entry::Play(_))).count();
    assert_eq!(played, heard.len() / 160);
    let shown = answer(&["replay", text(&tape)]);
    assert!(shown.contains(&missing), "{shown}");
    assert!(shown.contains("turns 1 (1 answered"), "{shown}");
}

#[test]
fn a_stop_waits_for_the_tapes() {
    let folder = Folder::new("stop");
    let mut gateway = Gateway::start(&folder.config());
    let mut stream = MediaStream::start(&gateway);
    stream.say(&tone(300));
    stream.reply();
    gateway.signal("TERM");
    gateway.event("DRAIN_START", 0);
    stream.hang_up();
    assert!(gateway.ended().success());
    let tapes = folder.tapes();
    assert_eq!(Tape::read(&fs::read(&tapes[0]).unwrap()).unwrap().missing(), None);
}

#[test]
fn old_tapes_go_when_the_gateway_starts_and_nothing_else_does() {
    let folder = Folder::new("old");
    fs::create_dir_all(&folder.0).unwrap();
    let make = |name: &str, hours: u64| {
        let path = folder.0.join(name);
        fs::write(&path, name).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3_600)).unwrap();
        path
    };
    let old = make("2026-01-01T10-00-00.000Z_CA1.tape", 30);
    let young = make("2026-01-01T10-00-00.000Z_CA2.tape", 20);
    let other = make("invoice.tape", 9_000);
    let gateway = Gateway::start(&format!("{}keep = \"24h\"\n", folder.config()));
    assert_eq!(gateway.event("TAPES_DELETED", 0)["deleted"], 1);
    assert!(!old.exists() && young.exists() && other.exists());
    assert_eq!(gateway.metric("voxgate_recordings_total{result=\"deleted\"}"), 1.0);
}

#[test]
fn a_call_goes_on_without_its_tape() {
    // Not even root makes a folder below a file.
    let file = Folder::new("file");
    fs::write(&file.0, "in the way").unwrap();
    for folder in [file.0.join("tapes"), PathBuf::from("/proc/voxgate")] {
        let gateway = Gateway::start(&format!("[recording]\nfolder = \"{}\"\n", folder.display()));
        crate::world::is_well(&gateway);
        gateway.event("TAPE_CUT", 0);
        assert_eq!(gateway.events("TAPE_CUT").len(), 1, "once for the call");
        assert_eq!(gateway.events("TAPES_UNWRITABLE").len(), 1);
        assert_eq!(gateway.metric("voxgate_recordings_total{result=\"cut\"}"), 1.0);
    }
    let _ = fs::remove_file(&file.0);
}

#[test]
fn nothing_is_recorded_unless_somebody_says_where() {
    let gateway = Gateway::start("");
    crate::world::is_well(&gateway);
    gateway.event("WS_STOP", 0);
    assert!(gateway.log().iter().all(|line| !line["message"].as_str().unwrap_or("").contains("TAPE")));
}

/// A call with an interruption, as it was recorded on an ordinary day.
const ECHO: &str = "tests/tapes/echo.tape";

#[test]
fn a_replay_reads_like_the_log() {
    insta::assert_snapshot!("replay", answer(&["replay", ECHO]));
}

#[test]
fn a_replay_with_another_configuration_says_what_is_different() {
    let folder = Folder::new("patient");
    fs::create_dir_all(&folder.0).unwrap();
    let config = folder.0.join("patient.toml");
    fs::write(&config, "[turn]\nvad = \"rms\"\neou_ms = 900\nbarge_in = false\n").unwrap();
    let shown = answer(&["replay", ECHO, ECHO, "--config", text(&config)]);
    insta::assert_snapshot!("replay_otherwise", shown);
}

#[test]
fn a_picture_has_the_whole_name_of_its_call() {
    let folder = Folder::new("named");
    fs::create_dir_all(&folder.0).unwrap();
    let tape = folder.0.join("2026-11-26T10-43-42.123Z_CA12.tape");
    fs::copy(ECHO, &tape).unwrap();
    let drawn = world::voxgate().args(["tune", text(&tape)]).current_dir(&folder.0).status();
    assert!(drawn.unwrap().success());
    assert!(folder.0.join("2026-11-26T10-43-42.123Z_CA12.svg").exists());
}

#[test]
fn a_picture_shows_the_decisions_and_the_values_that_made_them() {
    let folder = Folder::new("picture");
    fs::create_dir_all(&folder.0).unwrap();
    let out = folder.0.join("call.svg");
    answer(&["tune", ECHO, "--out", text(&out)]);
    let svg = fs::read_to_string(&out).unwrap();
    for part in [
        "quiet 460 ms ≥ eou 450 ms",
        "HOLD: voice for ",
        "HOLD, then CONFIRM",
        "barge-in: voice, ",
        "ends the utterance",
        "vad_rms",
        "SPEAKING",
        "bot, taken back",
        "answer after ",
    ] {
        assert!(svg.contains(part), "{part} is missing");
    }
    assert!(!svg.contains("probably"), "loudness alone has no doubts");
    // The same, heard by the network.
    let neural = folder.0.join("neural.toml");
    fs::write(&neural, "[turn]\nvad = \"neural\"\n").unwrap();
    answer(&["tune", ECHO, "--config", text(&neural), "--out", text(&out)]);
    let svg = fs::read_to_string(&out).unwrap();
    for part in [
        "Not as recorded: ",
        "speech, probably",
        "noise floor",
        "echo could be",
        "by the network, over vad_rms 210",
    ] {
        assert!(svg.contains(part), "{part} is missing");
    }
    // A caller's WAV, with another configuration.
    let wav = folder.0.join("caller.wav");
    fs::write(&wav, voxgate::audio::wav::wav_pcm16(&[&tone(500)[..], &[0xFF; 8_000]].concat())).unwrap();
    let config = folder.0.join("gateway.toml");
    fs::write(&config, "[turn]\nvad = \"rms\"\neou_ms = 300\n").unwrap();
    answer(&["tune", text(&wav), "--config", text(&config), "--out", text(&out)]);
    let svg = fs::read_to_string(&out).unwrap();
    assert!(svg.contains("quiet 300 ms ≥ eou 300 ms"), "{svg}");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
}

#[test]
fn values_are_suggested_for_a_folder_of_tapes() {
    let shown = answer(&["tune", "--suggest", "tests/tapes"]);
    assert!(shown.contains("nothing is suggested: 2 turns tell too little"), "{shown}");
    // A caller who speaks once and waits has no use for a long pause.
    let folder = Folder::new("many");
    fs::create_dir_all(&folder.0).unwrap();
    for n in 0..20 {
        fs::copy(ECHO, folder.0.join(format!("{n}.tape"))).unwrap();
    }
    let shown = answer(&["tune", "--suggest", text(&folder.0)]);
    assert!(shown.contains("  eou_ms = 250: 20 of 20 calls, 40 turns: "), "{shown}");
    assert!(shown.contains("early_agent: makes no difference"), "{shown}");
    assert!(shown.contains("\n[turn]\neou_ms = 250\n"), "{shown}");
}

#[test]
fn what_cannot_be_read_is_one_line_that_says_why() {
    let none = voxgate(&["replay", "no/such.tape"]);
    let other = voxgate(&["replay", "Cargo.toml"]);
    for (output, said) in [
        (none, "voxgate: no/such.tape: No such file or directory (os error 2)\n"),
        (other, "voxgate: Cargo.toml: not a tape of voxgate's\n"),
    ] {
        assert_eq!(String::from_utf8_lossy(&output.stderr), said);
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn the_help_of_each_fits_a_screen_and_ends_in_an_example() {
    for command in ["replay", "tune"] {
        let help = answer(&[command, "--help"]);
        assert!(help.lines().count() <= 40, "{help}");
        assert!(help.trim_end().lines().last().unwrap().contains(&format!("voxgate {command} ")), "{help}");
    }
}

/// A second stream of one call is a tape of its own.
#[test]
fn every_stream_has_its_tape() {
    let folder = Folder::new("streams");
    let gateway = Gateway::start(&folder.config());
    let mut streams: Vec<MediaStream> = (0..3).map(|_| MediaStream::open(&gateway)).collect();
    for stream in &mut streams {
        "CA../../x".clone_into(&mut stream.call_sid);
        stream.begin();
    }
    for mut stream in streams {
        stream.stop();
        while !matches!(stream.hear(), Heard::Closed(_)) {}
    }
    until("three tapes", || (folder.tapes().len() == 3).then_some(()));
    until("their ends", || (gateway.events("TAPE_WRITTEN").len() == 3).then_some(()));
    for tape in folder.tapes() {
        assert!(text(&tape).contains("_CA______x"), "{tape:?}");
        assert_eq!(Tape::read(&fs::read(&tape).unwrap()).unwrap().missing(), None);
    }
}
