//! A short call: something is said, the answer is interrupted, and what came back is judged. What is heard after
//! that may have been about to come anyway, a greeting for one; so the interruption wants an answer, too.

use std::sync::Arc;
use std::time::Duration;

use super::handshake::Line;
use super::report::{Fault, Report};
use crate::audio::{BYTES_PER_MS, FRAME_BYTES};
use crate::cli::call::{CallReport, Step, run_call};

/// A greeting begins within that, or its bot is not heard to greet.
const FOR_A_GREETING: Duration = Duration::from_secs(3);
/// The caller's patience, from the end of speech to the first audio.
const FIRST_AUDIO: Duration = Duration::from_secs(6);
/// A reply is waited for a little longer, so that a late one can be told from none.
const FOR_A_REPLY: Duration = Duration::from_secs(10);
/// From the first word of an interruption to `clear`.
const CLEAR: Duration = Duration::from_millis(1_500);
/// The most that may be queued at Twilio.
const LEAD: Duration = Duration::from_secs(3);
/// Silence within a reply: 5 % of it may pass for the network's.
const GAPS_IN: u32 = 20;
/// Were we later than this ourselves, then the frames of the server say little.
const OWN_LATENESS_US: u64 = 60_000;

/// The cure of a bot that speaks and does not answer.
const IS_IT_HEARD: &str =
    "see the server's log: does it hear the caller, and what becomes of STT, agent and TTS?";

pub(super) async fn short_call(line: &mut Line<'_>, said: Vec<u8>, report: &mut Report) {
    let said: Arc<[u8]> = said.into();
    let timeout = FOR_A_REPLY;
    let script = vec![
        Step::WaitForSilence { quiet: FOR_A_GREETING, timeout: Duration::from_secs(30) },
        Step::Say(said.clone()),
        Step::Interrupt { after: Duration::from_millis(300), audio: said, timeout },
        // Until the next reply is to be heard; nothing is said into it.
        Step::Interrupt { after: Duration::ZERO, audio: Arc::default(), timeout },
        Step::Pause(CLEAR),
        Step::Hangup,
    ];
    let options = line.options(None).await;
    match run_call(options, script).await {
        Ok(call) => judge(&call, report),
        Err(error) => {
            let fault = Fault::new(
                "the handshake went well before",
                "see the server's log: is there room for one call only?",
            );
            report.fail("call", format!("{error:#}"), fault.code(31920));
        }
    }
}

fn judge(call: &CallReport, report: &mut Report) {
    let seconds = call.duration.as_secs_f32();
    match call.close.as_ref().filter(|close| close.by_server && (close.code != 1000 || call.unsaid > 0)) {
        Some(close) => {
            let seen = format!("closed after {seconds:.1} s with {} {:?}", close.code, close.reason);
            let fault = if call.duration < Duration::from_secs(1) {
                Fault::new(
                    "101 and then 31924: the subprotocol or the framing",
                    "let nothing be sent before `start`; see the server's log",
                )
                .code(31924)
            } else {
                Fault::new("the server ended the call", "see its log: a crash, a restart, a time-out")
                    .code(31921)
            };
            report.fail("call", seen, fault);
        }
        None => report.pass("call", format!("{seconds:.1} s, {} pings of the server answered", call.pings)),
    }
    first_audio(call, report);
    frames(call, report);
    messages(call, report);
    barge_in(call, report);
}

fn first_audio(call: &CallReport, report: &mut Report) {
    let check = "first audio";
    let silent = || {
        if !call.spurts.is_empty() {
            return Fault::new("the bot speaks, but does not answer what is said to it", IS_IT_HEARD);
        }
        let cure = "send one every 20 ms, in a task of its own; wait for STT, agent and TTS elsewhere";
        Fault::new("101 and silence: no frame is sent each 20 ms, or TTS blocks the media path", cure)
    };
    let Some(turn) = call.turns.first() else {
        return report.fail(check, "the call ended before anything was said", silent());
    };
    // An echo may begin before the caller has finished.
    match (turn.audible_latency(), turn.reply_at) {
        (Some(latency), _) if latency <= FIRST_AUDIO && is_left_alone(call) => {
            let fault = Fault::new("what was heard before was no answer: a late greeting?", IS_IT_HEARD);
            let seen = format!(
                "{} ms after the end of speech, but none within {} s of what was said into it",
                latency.as_millis(),
                FOR_A_REPLY.as_secs()
            );
            report.fail(check, seen, fault);
        }
        (Some(latency), _) if latency <= FIRST_AUDIO => {
            report.pass(check, format!("{} ms after the end of speech", latency.as_millis()));
        }
        (Some(latency), _) => {
            let cure =
                "look at turn_stage_seconds: which of STT, agent and TTS takes so long? Stream the reply";
            let fault = Fault::new("the answer takes longer than callers wait", cure);
            report.fail(check, format!("{} ms after the end of speech", latency.as_millis()), fault);
        }
        (None, Some(_)) => {
            let fault = Fault::new(
                "frames come, and there is nothing in them to hear",
                "check what TTS returns: silence is 0xFF in μ-law",
            );
            report.fail(check, "frames of silence", fault);
        }
        (None, None) => report.fail(check, format!("none within {} s", FOR_A_REPLY.as_secs()), silent()),
    }
}

/// The bot has fallen silent for an interruption, and has not answered it. One that talks on, or has hung up, is
/// judged for that.
fn is_left_alone(call: &CallReport) -> bool {
    let interruption = call.turns.iter().rfind(|turn| turn.interrupts);
    let cleared = call.barge_ins.last().is_some_and(|barge_in| barge_in.clear.is_some());
    let hung_up = call.close.as_ref().is_some_and(|close| close.by_server);
    cleared && !hung_up && interruption.is_some_and(|turn| turn.audible_at.is_none())
}

fn frames(call: &CallReport, report: &mut Report) {
    let check = "frames";
    if call.frames_in == 0 {
        return report.skip(check, "none came");
    }
    let size = call.bytes_in as f64 / call.frames_in as f64;
    let heard = Duration::from_micros(call.bytes_in * 1_000 / BYTES_PER_MS as u64);
    let late = Duration::from_micros(call.lateness.value_at_quantile(0.99));
    let own = call.own_lateness.value_at_quantile(0.99);
    let seen = format!(
        "{} of {size:.0} bytes, {} underruns, {} ms of gaps, p99 {} ms late, {} ms ahead",
        call.frames_in,
        call.underruns,
        call.gap_total.as_millis(),
        late.as_millis(),
        call.max_lead.as_millis()
    );
    let cadence = "pace with absolute deadlines of 20 ms, apart from where audio is made";
    if let Some(header) = call.violations.iter().find(|violation| violation.code == 0) {
        let cure = "send raw μ-law of 8 kHz: decode what TTS returns, header and all";
        report.fail(check, seen, Fault::new(header.what.as_str(), cure));
    } else if (size - FRAME_BYTES as f64).abs() > 0.5 {
        report.fail(
            check,
            seen,
            Fault::new("frames are not 20 ms long", "cut audio into 160 bytes a message"),
        );
    } else if call.max_lead > LEAD {
        let cause = "audio is sent in bursts: an interruption finds seconds of it at Twilio";
        report.fail(check, seen, Fault::new(cause, cadence));
    } else if call.underruns > 0 && call.gap_total > heard / GAPS_IN {
        // So many gaps are nobody's but the server's.
        let plain = call.gap_total > heard / 3;
        if own > OWN_LATENESS_US && !plain {
            report
                .skip(check, format!("{seen}: not judged, this machine was {} ms late itself", own / 1_000));
        } else {
            report.fail(check, seen, Fault::new("frames come too late: the caller hears gaps", cadence));
        }
    } else {
        report.pass(check, seen);
    }
}

fn messages(call: &CallReport, report: &mut Report) {
    let broken: Vec<_> = call.violations.iter().filter(|violation| violation.code != 0).collect();
    match broken.first() {
        Some(first) => {
            let cure = "send media, mark and clear with exactly Twilio's fields, as text, after `start`";
            let fault = Fault::new("Twilio takes no such message", cure).code(first.code);
            report.fail(
                "messages",
                format!("{} of {}: {}", broken.len(), call.violation_count, first.what),
                fault,
            );
        }
        None => report.pass(
            "messages",
            format!("{} frames, {} marks, {} clear", call.frames_in, call.marks_in, call.clears),
        ),
    }
}

fn barge_in(call: &CallReport, report: &mut Report) {
    let check = "barge-in";
    let Some(interruption) = call.barge_ins.first() else {
        let why = if call.turns.iter().any(|turn| turn.reply_at.is_some()) {
            "not judged: the reply was over before it could be interrupted"
        } else {
            "not tried: there was no reply"
        };
        return report.skip(check, why);
    };
    let cure = "send `clear` as soon as the caller speaks; here: [turn] barge_in = true";
    match interruption.clear {
        Some(took) if took <= CLEAR => report.pass(check, format!("clear after {} ms", took.as_millis())),
        Some(took) => {
            let fault = Fault::new("the bot talks on for too long", cure);
            report.fail(check, format!("clear after {} ms", took.as_millis()), fault);
        }
        None => report.fail(check, "no clear", Fault::new("the bot cannot be interrupted", cure)),
    }
}
