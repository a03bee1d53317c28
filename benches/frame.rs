//! What one frame of 20 ms costs inside the process, each way: everything but the socket.
//!
//! In: JSON, base64, framing, level, utterance, state machine. Out: pacer, base64, JSON.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group};
use voxgate::audio::{FRAME_BYTES, Frame, mulaw};
use voxgate::call::{Call, Collecting, Hearing, Input, Memory, Mode, Output, Phrase, Settings, Silence};
use voxgate::cli::call::sound;
use voxgate::observe::{CallLabels, CallObserver, Metrics};
use voxgate::time::{CallTime, FRAME};
use voxgate::turn::{Endpointing, FrontEnd, Vad, Words};
use voxgate::twilio::{Message, Outbound, Reader};

fn settings(vad: Vad) -> Arc<Settings> {
    Arc::new(Settings {
        mode: Mode::Echo,
        hearing: Hearing::Utterances,
        vad,
        vad_rms: 210.0,
        endpointing: Endpointing {
            eou: Duration::from_millis(450),
            tail: vad.tail(),
            max_utterance: Duration::from_secs(30),
        },
        adaptive_eou: true,
        early_agent: false,
        silence: Silence::default(),
        barge_in: true,
        words: Arc::new(Words::new(&[], &[], &[])),
        dedup_window: Duration::from_secs(8),
        greeting: None,
        apology: Phrase::default(),
        filler: Phrase::default(),
        filler_after: Duration::MAX,
        reply_deadline: Duration::from_secs(6),
        transfer_apology: Phrase::default(),
        digits: Collecting::default(),
        control: None,
        ask_to_hang_up: false,
        memory: Memory::default(),
        lead: Duration::from_millis(100),
        // Frames out are measured without a caller.
        media_timeout: Duration::MAX,
    })
}

/// A frame of a tone with this peak.
fn frame(peak: f32) -> [u8; FRAME_BYTES] {
    std::array::from_fn(|i| mulaw::encode((peak * (i as f32 * 0.35).sin()) as i16))
}

fn media(frame: &[u8], chunk: u64) -> String {
    let payload = base64::engine::general_purpose::STANDARD.encode(frame);
    format!(
        r#"{{"event":"media","sequenceNumber":"{}","media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{}","payload":"{payload}"}},"streamSid":"MZ18ad3ab5a668481ce02b83e7395059f0"}}"#,
        chunk + 1,
        chunk * 20
    )
}

/// 20 s of these frames, as the carrier sends them.
fn messages(frames: &[[u8; FRAME_BYTES]]) -> Vec<String> {
    (0..1_000).map(|i| media(&frames[i as usize % frames.len()], i)).collect()
}

/// Time to take in that many messages.
fn hear(vad: Vad, texts: &[String], frames: u64) -> Duration {
    let mut reader = Reader::default();
    let mut call = Call::new(settings(vad), CallTime::ZERO);
    let started = Instant::now();
    for i in 0..frames {
        // The carrier's clock starts anew each 20 s; that is no gap.
        let text = black_box(&texts[i as usize % texts.len()]);
        if let Ok(Message::Media { payload, timestamp_ms, .. }) = reader.read(text) {
            call.handle(Input::Media { payload, timestamp_ms }, CallTime::from_millis(i * 20));
        }
        while let Some(output) = call.poll_output() {
            black_box(output);
        }
    }
    started.elapsed()
}

fn inbound(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame in");
    group.throughput(Throughput::Elements(1));
    for (name, vad, frames) in [
        ("quiet line", Vad::Neural, quiet_line()),
        ("speech", Vad::Neural, speech()),
        ("quiet line, rms", Vad::Rms, quiet_line()),
        ("speech, rms", Vad::Rms, speech()),
    ] {
        let texts = messages(&frames);
        group.bench_function(name, |b| b.iter_custom(|frames| hear(vad, &texts, frames)));
    }
    group.finish();
}

/// What turn-taking asks of a frame, and nothing else: the share of a call's audio front end.
fn front_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("front end");
    group.throughput(Throughput::Elements(1));
    // The bot speaks in the last: its echo is looked for.
    for (name, vad, frames, far_db) in [
        ("quiet line", Vad::Neural, quiet_line(), 0.0),
        ("speech", Vad::Neural, speech(), 0.0),
        ("speech while the bot speaks", Vad::Neural, speech(), 70.0),
        ("speech, rms", Vad::Rms, speech(), 0.0),
    ] {
        let frames: Vec<Frame> = frames.into_iter().map(Frame).collect();
        let mut front = FrontEnd::new(vad, 210.0);
        let mut all = frames.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| all.next().map(|frame| front.hear(black_box(frame), far_db)));
        });
    }
    // Each call's state comes from memory anew: 20 ms of that many calls, which is to cost no more than
    // 5 ms, a quarter of a core.
    let mut calls: Vec<FrontEnd> = (0..1_000).map(|_| FrontEnd::new(Vad::Neural, 210.0)).collect();
    let frames: Vec<Frame> = quiet_line().into_iter().map(Frame).collect();
    let mut all = frames.iter().cycle();
    group.bench_function("1,000 quiet lines", |b| {
        b.iter(|| {
            let Some(frame) = all.next() else { return };
            calls.iter_mut().for_each(|front| {
                black_box(front.hear(black_box(frame), 0.0));
            });
        });
    });
    group.finish();
    let (front, network) = (size_of::<FrontEnd>(), size_of::<earshot::Detector>());
    println!("memory of a front end: {front} bytes, and {network} of its network");
}

/// What is counted of a frame, each way: what a monitor costs the media path.
fn counted(c: &mut Criterion) {
    let mut group = c.benchmark_group("counted");
    group.throughput(Throughput::Elements(1));
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let labels = CallLabels { call_sid: "CA1".into(), stream_sid: "MZ1".into() };
    let mut observer = CallObserver::new(metrics, labels, false);
    let mut at = 0;
    group.bench_function("frame in", |b| {
        b.iter(|| {
            at += 20;
            // As a session does: a second's frames are told at once.
            if observer.heard(black_box(FRAME_BYTES), Some(at), CallTime::from_millis(at + at % 3)) {
                observer.took(Duration::from_micros(8));
                observer.waits(Duration::from_millis(at % 500));
            }
        });
    });
    group.bench_function("frame out", |b| b.iter(|| observer.sent(black_box(Duration::from_micros(700)))));
    group.finish();
}

/// A line with a little noise on it.
fn quiet_line() -> Vec<[u8; FRAME_BYTES]> {
    vec![frame(40.0), frame(30.0)]
}

/// Speech with pauses too short to end an utterance, which is recorded.
fn speech() -> Vec<[u8; FRAME_BYTES]> {
    let frames = sound::utterance();
    frames.as_chunks::<FRAME_BYTES>().0.to_vec()
}

fn outbound(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame out");
    group.throughput(Throughput::Elements(1));
    group.bench_function("reply", |b| {
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            let mut left = iterations;
            while left > 0 {
                let frames = left.min(5_000);
                spent += reply_of(frames);
                left -= frames;
            }
            spent
        });
    });
    group.finish();
}

/// Time to send a reply of that many frames, each when it is due.
fn reply_of(frames: u64) -> Duration {
    let audio = Bytes::from(frame(6_000.0).repeat(frames as usize));
    let greeting = Some(Phrase { text: "Hello.".into(), audio });
    let settings = Arc::new(Settings { greeting, ..Settings::clone(&settings(Vad::Neural)) });
    let mut outbound = Outbound::new("MZ18ad3ab5a668481ce02b83e7395059f0");
    let mut call = Call::new(settings, CallTime::ZERO);
    let started = Instant::now();
    let mut now = CallTime::ZERO;
    for _ in 0..frames {
        while let Some(output) = call.poll_output() {
            if let Output::Play { frame, .. } = output {
                black_box(outbound.media(&frame));
            }
        }
        now = now + FRAME;
        call.handle_timeout(now);
    }
    started.elapsed()
}

criterion_group!(benches, inbound, front_end, counted, outbound);

/// `frame --only KIND N` does nothing but N frames of a kind, for `tests/bench/instructions.sh` to count.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [only, kind, frames] = args.as_slice() else { return measure() };
    let ("--only", Ok(frames)) = (only.as_str(), frames.parse()) else { return measure() };
    match kind.as_str() {
        "quiet" => hear(Vad::Neural, &messages(&quiet_line()), frames),
        "speech" => hear(Vad::Neural, &messages(&speech()), frames),
        "rms" => hear(Vad::Rms, &messages(&speech()), frames),
        "out" => reply_of(frames),
        other => panic!("no such kind of frame: {other}"),
    };
}

fn measure() {
    benches();
    Criterion::default().configure_from_args().final_summary();
}
