//! How fast tapes are replayed: call-minutes a second of one core, from the file to the last output.
//!
//! `cargo bench --bench replay` makes its own tapes: callers who speak a third of the time and hear
//! themselves for as long, on a line with noise, by the neural detector. `cargo bench --bench replay -- DIR`
//! takes the tapes of a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use voxgate::audio::{APOLOGY, FRAME_BYTES, mulaw};
use voxgate::call::Settings;
use voxgate::config::Config;
use voxgate::edge;
use voxgate::tape::{CallIds, Entry, Header, Step, Tape, append, begin, replay, simulate};
use voxgate::time::{CallTime, FRAME};
use voxgate::turn::Vad;

const CALLS: u32 = 8;
const MINUTES: u32 = 4;
/// Each tape so often, so that a figure does not hang on one moment of the machine.
const ROUNDS: u32 = 5;

fn main() {
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with("--")).map(PathBuf::from);
    let made = folder.is_none();
    let folder = folder.unwrap_or_else(make);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut tapes: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    tapes.retain(|path| path.extension().is_some_and(|ending| ending == "tape"));
    tapes.sort();
    println!("{} tapes; call-minutes a second of one core:", tapes.len());
    let patient = |mut settings: Settings| {
        settings.endpointing.eou = Duration::from_millis(700);
        settings
    };
    let loud = |settings| Settings { vad: Vad::Rms, vad_rms: 300.0, ..settings };
    figure("read", &tapes, |_, tape| drop(std::hint::black_box(tape)));
    figure("as recorded", &tapes, |recorded, tape| run(&tape, recorded.clone(), recorded));
    figure("eou_ms = 700", &tapes, |recorded, tape| run(&tape, patient(recorded.clone()), recorded));
    figure("vad = \"rms\"", &tapes, |recorded, tape| run(&tape, loud(recorded.clone()), recorded));
    figure("measured anew", &tapes, |recorded, mut tape| {
        tape.forget_measured();
        run(&tape, recorded.clone(), recorded);
    });
    if made {
        let _ = std::fs::remove_dir_all(folder);
    }
}

fn run(tape: &Tape<'_>, settings: Settings, recorded: &Settings) {
    let outcome = replay(tape, Arc::new(settings), recorded, |at, step| {
        std::hint::black_box((at, step));
    });
    std::hint::black_box(outcome);
}

fn figure(name: &str, tapes: &[PathBuf], each: impl Fn(&Settings, Tape<'_>)) {
    let usual = edge::settings(&Config::default());
    let mut minutes = 0.0;
    let started = cpu();
    let mut bytes = Vec::new();
    for path in (0..ROUNDS).flat_map(|_| tapes) {
        bytes.clear();
        read(path, &mut bytes);
        let tape = Tape::read(&bytes).expect("a tape");
        minutes += tape.lasted().as_millis() as f64 / 60_000.0;
        let recorded = tape.header.settings(&usual).expect("settings");
        each(&recorded, tape);
    }
    println!("  {name:14} {:7.0}", minutes / (cpu() - started).as_secs_f64());
}

fn read(path: &Path, into: &mut Vec<u8>) {
    let mut file = std::fs::File::open(path).expect("a tape");
    std::io::Read::read_to_end(&mut file, into).expect("a tape");
}

/// What this thread has had of a core: others may be busy on the machine.
fn cpu() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(told.split(' ').next().and_then(|ns| ns.parse().ok()).expect("Linux tells"))
}

/// Calls in virtual time, on tape.
fn make() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("voxgate-bench-tapes-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let settings = Arc::new(edge::settings(&Config::default()));
    for call in 0..CALLS {
        let ids = CallIds { call_sid: format!("CA{call}"), ..CallIds::default() };
        let mut tape = begin(&Header::new(ids, &settings, SystemTime::now()));
        record(&line(call), &settings, &mut tape);
        std::fs::write(folder.join(format!("{call}.tape")), tape).expect("room for tapes");
    }
    folder
}

fn record(line: &[[u8; FRAME_BYTES]], settings: &Arc<Settings>, tape: &mut Vec<u8>) {
    let frames = line.iter().zip(0u32..).map(|(frame, n)| {
        let payload = frame.as_slice().into();
        (CallTime::ZERO + FRAME * n, Entry::Media { payload, timestamp_ms: Some(u64::from(n) * 20) })
    });
    let entries: Vec<(CallTime, Entry<'_>)> = frames.collect();
    let mut room = Vec::new();
    let mut next = line.iter().zip((0..).step_by(20));
    simulate(&entries, settings.clone(), |at, step| match step {
        Step::Told(Entry::Media { .. }) | Step::Level { .. } => {}
        // A frame at a time: what was told and what it told.
        Step::Heard { frame, .. } => {
            if let Some((payload, timestamp_ms)) = next.next() {
                append(tape, at, &Entry::heard(payload, Some(timestamp_ms), &[frame], &mut room));
            }
        }
        Step::Told(entry) => append(tape, at, entry),
        Step::Did(output) => {
            if let Some(entry) = Entry::of_output(output) {
                append(tape, at, &entry);
            }
        }
    });
    append(tape, CallTime::ZERO + FRAME * line.len() as u32, &Entry::End);
}

/// Speech every 16 s or so, noise all the time.
fn line(call: u32) -> Vec<[u8; FRAME_BYTES]> {
    let mut seed = call + 1;
    let mut random = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 8
    };
    let speech = APOLOGY.as_chunks::<FRAME_BYTES>().0;
    let mut line = Vec::new();
    while line.len() < (MINUTES * 60 * 50) as usize {
        line.extend_from_slice(speech);
        line.extend((0..speech.len() * 2 + random() as usize % 100).map(|_| [0xFF; FRAME_BYTES]));
    }
    for byte in line.as_flattened_mut() {
        let noise = (random() % 160) as i16 - 80;
        *byte = mulaw::encode(mulaw::decode(*byte).saturating_add(noise));
    }
    line
}
