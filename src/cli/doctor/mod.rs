//! `voxgate doctor`: is a deployment fit for calls? It is asked what Twilio would ask it, whoever it
//! is: this gateway, another server, or a Flask app alone. One row a check, and for every failed one
//! the cause and the cure.

mod call;
mod handshake;
mod http;
mod reach;
mod report;
mod signer;
mod target;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use report::Report;
use signer::Signer;
use target::Target;

/// Judges a deployment: GO or NO-GO, with the cause and the cure of every failed check
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Exit status: 0 for GO, 1 for NO-GO. With TWILIO_AUTH_TOKEN set, requests are signed as Twilio's are.

Example: after a deployment, with the id that it should bear
  voxgate doctor https://bot.example.com --expect-deploy-id 2026-11-22-b")]
pub(super) struct DoctorArgs {
    /// Where the deployment is: https://HOST, or http://HOST:PORT near by
    pub(super) url: String,
    /// /version must bear this id
    #[arg(long, value_name = "ID")]
    pub(super) expect_deploy_id: Option<String>,
    /// The voice webhook
    #[arg(long, value_name = "PATH", default_value = "/webhook/incoming_call", value_parser = path)]
    pub(super) incoming_call: String,
    /// The statusCallback of streams
    #[arg(long, value_name = "PATH", default_value = "/webhook/stream_status", value_parser = path)]
    pub(super) stream_status: String,
    /// The media path, where the TwiML of the voice webhook names none
    #[arg(long, value_name = "PATH", default_value = "/ws/twilio-media", value_parser = path)]
    pub(super) media: String,
    /// The subprotocol that is offered in one of the handshakes
    #[arg(long, value_name = "NAME", default_value = "audio.twilio.com")]
    pub(super) subprotocol: String,
    /// The URL that Twilio knows it by, where another is asked: signatures are made for it
    #[arg(long, value_name = "URL")]
    pub(super) public_url: Option<String>,
    /// A header of every request; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::call::pair)]
    pub(super) header: Vec<(String, String)>,
    /// What the short call says [default: a built-in utterance]
    #[arg(long, value_name = "FILE.wav")]
    pub(super) say: Option<std::path::PathBuf>,
    /// Leave the short call out
    #[arg(long)]
    pub(super) no_call: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(super) json: bool,
}

fn path(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("a path starts with /".to_owned()),
    }
}

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs the command in a runtime of its own.
pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    // Fails if a provider is installed already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let target = Target::parse(args)?;
    let said = match &args.say {
        Some(file) => super::call::sound::read_wav(file)?,
        None => super::call::sound::utterance(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("no runtime; is the system short of threads?")?;
    let signer = Signer::of(args, &target);
    let report = runtime.block_on(examine(args, &target, &signer, said))?;
    match args.json {
        true => println!("{}", report.to_json(&args.url)),
        false => print!("{report}"),
    }
    Ok(if report.is_go() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn examine(args: &DoctorArgs, target: &Target, signer: &Signer, said: Vec<u8>) -> Result<Report> {
    let mut report = Report::new(&args.url);
    if !reach::reach(target, &mut report).await {
        for check in ["version", "healthz", "handshake", "incoming_call", "stream_status", "call"] {
            report.skip(check, "not tried: the server cannot be reached");
        }
        return Ok(report);
    }
    signer.tell(&mut report);
    let http = http::Client::new(target, &args.header, signer)?;
    http.version(args.expect_deploy_id.as_deref(), &mut report).await;
    http.healthz(&mut report).await;
    // Its TwiML names the media path, and is asked first; its rows come where the list has them.
    let mut twiml = Report::new(&args.url);
    let media = http.incoming_call(&args.incoming_call, &args.media, &args.stream_status, &mut twiml).await;
    let mut line = handshake::Line { args, target, signer, http: &http, media };
    let takes_calls = line.handshakes(&mut report).await;
    report.append(twiml);
    http.stream_status(&args.stream_status, &mut report).await;
    match (args.no_call, takes_calls) {
        (true, _) => report.skip("call", "left out (--no-call)"),
        (false, false) => report.skip("call", "not tried: there is no handshake"),
        (false, true) => call::short_call(&mut line, said, &mut report).await,
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: DoctorArgs,
    }

    #[test]
    fn the_help_fits_a_screen_and_ends_in_an_example() {
        let help = <Cli as clap::CommandFactory>::command().render_help().to_string();
        assert!(help.lines().count() <= 50, "{} lines", help.lines().count());
        assert!(help.trim_end().ends_with("--expect-deploy-id 2026-11-22-b"), "{help}");
        assert!(Cli::try_parse_from(["voxgate", "http://h", "--media", "ws"]).is_err());
        let cli = Cli::try_parse_from(["voxgate", "http://h"]).unwrap();
        assert_eq!(cli.args.incoming_call, "/webhook/incoming_call");
    }
}
