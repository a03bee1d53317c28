//! The command line of `voxgate call`.

use super::caller::{CallOptions, run_call_watched};
use super::figures::{self, Cost, Figures};
use super::script::Step;
use super::{crowd, process, sound};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Plays Twilio against a media URL: makes calls, listens, measures
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Exit status: 0 if every call was served, else 1 with one line on stderr that says why.

Example: two questions, and a word into the second answer after 800 ms
  voxgate call ws://127.0.0.1:8080/ws/twilio-media --say a.wav --say b.wav --interrupt no.wav@800")]
pub struct CallArgs {
    /// ws:// or wss:// URL of the media stream
    pub url: String,
    /// Say this, then wait for the reply; repeatable [default: a built-in utterance]
    #[arg(long, value_name = "FILE.wav")]
    pub say: Vec<PathBuf>,
    /// Say this into the last reply, once that much of it was heard [default: 800 ms]
    #[arg(long, value_name = "FILE.wav[@MS]")]
    pub interrupt: Option<String>,
    /// Press these keys before hanging up
    #[arg(long, value_name = "DIGITS", value_parser = digits)]
    pub dtmf: Option<String>,
    /// How many calls at once; more than one gives sums only
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub calls: u32,
    /// Begin the calls over this time [default: 10 ms a call]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub ramp: Option<Duration>,
    /// Repeat the script until the call is this old, 30s or 5m for instance
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// How long to wait for a reply, and for its end
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "20s")]
    pub timeout: Duration,
    /// What the caller heard, 16-bit PCM [default: heard.wav, for a single call]
    #[arg(long, value_name = "FILE.wav")]
    pub out: Option<PathBuf>,
    /// Offer this subprotocol; Twilio offers none
    #[arg(long, value_name = "NAME")]
    pub subprotocol: Option<String>,
    /// A custom parameter of `start`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub param: Vec<(String, String)>,
    /// A header of the handshake, X-Twilio-Signature=… for instance; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub header: Vec<(String, String)>,
    /// Also report CPU and memory of this process, the gateway's
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// Runs the command in a runtime of its own.
pub fn run(args: CallArgs) -> Result<ExitCode> {
    // Fails if a provider is installed already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let one = args.calls == 1;
    let mut runtime = match one {
        true => tokio::runtime::Builder::new_current_thread(),
        false => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().context("no runtime; is the system short of threads?")?;
    let complaint =
        runtime.block_on(async { if one { one_call(args).await } else { many_calls(args).await } })?;
    Ok(match complaint {
        None => ExitCode::SUCCESS,
        Some(complaint) => {
            eprintln!("voxgate call: {complaint}");
            ExitCode::FAILURE
        }
    })
}

async fn one_call(args: CallArgs) -> Result<Option<String>> {
    let (options, script) = plan(&args)?;
    let before = args.pid.map(process::usage).transpose()?;
    let live = !args.json;
    let mut print = |moment: &super::report::Moment| {
        if live {
            // A reader that has gone away (`| head`) does not end the call.
            _ = writeln!(std::io::stdout().lock(), "{moment}");
        }
    };
    let outcome = run_call_watched(options, script, &mut print).await;
    let mut figures = Figures::default();
    figures.add(&outcome);
    if let (Some(pid), Some(before)) = (args.pid, before) {
        let after = process::usage(pid)?;
        let rss_kib = after.rss_kib.saturating_sub(before.rss_kib);
        figures.cost(Cost { cpu: after.cpu.saturating_sub(before.cpu), rss_kib });
    }
    let Ok(report) = outcome else {
        if args.json {
            println!("{}", with_url(&figures, &args.url));
        }
        return Ok(figures.complaint());
    };
    let out = args.out.unwrap_or_else(|| PathBuf::from("heard.wav"));
    sound::write_wav(&out, &report.heard)?;
    if args.json {
        let mut json = with_url(&figures, &args.url);
        json["call"] = figures::detail(&report);
        json["call"]["out"] = out.display().to_string().into();
        println!("{json}");
    } else {
        println!("\n{figures}heard: {}", out.display());
    }
    Ok(figures.complaint())
}

async fn many_calls(args: CallArgs) -> Result<Option<String>> {
    if args.out.is_some() {
        bail!("--out records a single call: leave out --calls or --out");
    }
    let (mut options, script) = plan(&args)?;
    options.record = false;
    let ramp = args.ramp.unwrap_or(Duration::from_millis(10) * args.calls);
    let figures = crowd::run(options, script, args.calls, ramp, args.pid).await?;
    match args.json {
        true => println!("{}", with_url(&figures, &args.url)),
        false => print!("{figures}"),
    }
    Ok(figures.complaint())
}

fn with_url(figures: &Figures, url: &str) -> serde_json::Value {
    let mut json = figures.to_json();
    json["url"] = url.into();
    json
}

/// What to do, from the arguments.
fn plan(args: &CallArgs) -> Result<(CallOptions, Vec<Step>)> {
    let options = CallOptions {
        subprotocol: args.subprotocol.clone(),
        headers: args.header.clone(),
        parameters: args.param.clone(),
        repeat_for: args.duration,
        ..CallOptions::new(&args.url)
    };
    let timeout = args.timeout;
    let mut says: Vec<Arc<[u8]>> =
        args.say.iter().map(|path| Ok(sound::read_wav(path)?.into())).collect::<Result<_>>()?;
    if says.is_empty() {
        says.push(sound::utterance().into());
    }
    let interrupt = args.interrupt.as_deref().map(interruption).transpose()?;
    // A greeting is heard out first; there may be none.
    let quiet = Duration::from_millis(500);
    let mut script = vec![Step::WaitForSilence { quiet, timeout }];
    let last = says.len() - 1;
    for (n, say) in says.into_iter().enumerate() {
        script.push(Step::Say(say));
        if let Some((audio, after)) = interrupt.clone().filter(|_| n == last) {
            script.push(Step::Interrupt { after, audio, timeout });
        }
        script.push(Step::wait_for_reply_end(timeout));
    }
    for digit in args.dtmf.iter().flat_map(|digits| digits.chars()) {
        script.extend([Step::Dtmf(digit), Step::Pause(Duration::from_millis(200))]);
    }
    if args.dtmf.is_some() {
        // Time for the server to say something about the keys, and for the caller to hear it out.
        script.push(Step::Pause(Duration::from_secs(2)));
        script.push(Step::WaitForSilence { quiet, timeout });
    }
    script.push(Step::Hangup);
    Ok((options, script))
}

/// `FILE.wav` or `FILE.wav@MS`.
fn interruption(text: &str) -> Result<(Arc<[u8]>, Duration)> {
    let (file, after) = match text.rsplit_once('@').map(|(file, ms)| (file, ms.parse::<u64>())) {
        Some((file, Ok(ms))) => (file, ms),
        _ => (text, 800),
    };
    Ok((sound::read_wav(Path::new(file))?.into(), Duration::from_millis(after)))
}

/// `250ms`, `30s`, `5m`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("write a time as 250ms, 30s or 5m".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| "write a time as 250ms, 30s or 5m".to_owned())?;
    Duration::try_from_secs_f64(number * factor).map_err(|e| e.to_string())
}

fn digits(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !"0123456789*#ABCD".contains(*c)) {
        Some(c) => Err(format!("{c:?} is on no telephone; use 0-9, *, # and A-D")),
        None => Ok(text.to_owned()),
    }
}

pub(in crate::cli) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: CallArgs,
    }

    fn args(extra: &[&str]) -> CallArgs {
        let line = ["voxgate", "ws://h/p"].iter().chain(extra);
        Cli::try_parse_from(line).map(|cli| cli.args).unwrap()
    }

    #[test]
    fn times_and_pairs_and_digits_are_read_or_refused() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "5 years", "-1s", "1e99h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("a").is_err() && digits("12x").is_err() && digits("1*#").is_ok());
    }

    #[test]
    fn a_plan_without_files_says_the_built_in_utterance_and_hangs_up() {
        let (options, script) = plan(&args(&["--dtmf", "1#", "--param", "k=v"])).unwrap();
        assert_eq!(options.parameters, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(options.subprotocol, None, "Twilio offers none");
        let kinds: Vec<String> = script
            .iter()
            .map(|step| format!("{step:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(
            kinds.join(" "),
            "WaitForSilence Say WaitForReplyEnd Dtmf Pause Dtmf Pause Pause WaitForSilence Hangup"
        );
        assert!(plan(&args(&["--say", "/none.wav"])).unwrap_err().to_string().contains("/none.wav"));
    }

    #[test]
    fn the_help_fits_a_screen_and_ends_in_an_example() {
        let help = <Cli as clap::CommandFactory>::command().render_help().to_string();
        assert!(help.lines().count() <= 50, "{} lines", help.lines().count());
        assert!(help.trim_end().ends_with("--interrupt no.wav@800"), "{help}");
    }
}
