//! The commands. The only room that prints, and the only one where `anyhow` is at home.

mod admin;
pub mod call;
mod child;
mod doctor;
mod explain;
mod probe;
mod replay;
mod show;
mod tune;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory, Parser, Subcommand};

#[doc(hidden)]
pub use self::explain::explained;

use self::child::{Child, Recipe};
use crate::config::{self, Config, Place, Problem, Problems, Source};
use crate::{edge, observe};

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("VOXGATE_COMMIT"),
    ", ",
    env!("VOXGATE_TARGET"),
    ")"
);

/// The gateway between Twilio's Media Streams and your app.
#[derive(Debug, Parser)]
#[command(
    name = "voxgate",
    version = LONG_VERSION,
    after_help = "Example: voxgate run --config gateway.toml",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway (the default), and with it the app, if a command is given
    #[command(after_help = "Example: PORT=8080 voxgate run -- gunicorn -k gthread --threads 16 app:app")]
    Run(RunArgs),
    /// Read the configuration as `run` would, and name every problem in it
    #[command(
        after_help = "Exit status: 0 if it is valid, else 1.\n\nExample: voxgate check --probe --config gateway.toml"
    )]
    Check(CheckArgs),
    /// Show what holds and where it comes from, or the schema for editors
    Config(show::ShowArgs),
    /// Judge a deployment: GO or NO-GO, and why
    Doctor(Box<doctor::DoctorArgs>),
    /// Have the running gateway read its configuration again; calls keep what they began with
    #[command(after_help = "Example: voxgate reload --config gateway.toml")]
    Reload(ConfigArgs),
    /// Hand the running gateway's listeners to a new process; the old one ends with its last call
    #[command(after_help = "Example: install -m 755 voxgate-new /usr/bin/voxgate && voxgate upgrade")]
    Upgrade(ConfigArgs),
    /// Print the completions of a shell
    #[command(after_help = "Example: voxgate completions bash > /etc/bash_completion.d/voxgate")]
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    #[command(after_help = "Example: voxgate man | man -l -")]
    Man,
    /// Play Twilio against a media URL
    Call(Box<call::CallArgs>),
    /// Run recorded calls again: what happened, or what would have with another configuration
    #[command(after_help = replay::EXAMPLE)]
    Replay(replay::ReplayArgs),
    /// Draw what the gateway heard and decided, and suggest better values
    #[command(after_help = tune::EXAMPLE)]
    Tune(tune::TuneArgs),
}

#[derive(Args, Debug)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Starts the app: PORT tells it where the gateway expects it; it is started again when it dies
    #[arg(last = true, value_name = "COMMAND")]
    app: Vec<OsString>,
}

#[derive(Args, Debug, Default)]
struct ConfigArgs {
    /// The configuration; else $VOXGATE_CONFIG, else ./gateway.toml, else the built-in defaults
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Ask each service once, and print what it answers
    #[arg(long)]
    probe: bool,
}

/// Does what the command line says. Wrong usage ends the process with status 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run(args),
        Command::Check(args) => check(&args),
        Command::Config(args) => show::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Reload(args) => post(&args, "/reload"),
        Command::Upgrade(args) => post(&args, "/upgrade"),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "voxgate", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            let page = clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout());
            page.map(|()| ExitCode::SUCCESS).context("the manual page")
        }
        Command::Call(args) => call::run(*args),
        Command::Replay(args) => replay::run(&args),
        Command::Tune(args) => tune::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("voxgate: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let (config, source) = load(&args.config)?;
    let _log = observe::init_log(config.log.format);
    tracing::info!(config = source.name(), "CONFIG");
    let child = match args.app {
        command if command.is_empty() => None,
        command => Some(Child::start(recipe(command, &config)?).context("the app")?),
    };
    let served = edge::serve(config, source).context("cannot start");
    // Last of all: callers may have needed it to the end.
    if let Some(child) = child {
        child.stop();
    }
    served.map(|()| ExitCode::SUCCESS)
}

/// How the app is started for this configuration.
fn recipe(command: Vec<OsString>, config: &Config) -> anyhow::Result<Recipe> {
    let port = config.app.servers.first().and_then(|server| server.rsplit_once(':')?.1.parse().ok());
    let port: u16 = port.context("[upstreams.app] servers: the app needs a port to listen on")?;
    anyhow::ensure!(
        port != config.server.listen.port(),
        "[upstreams.app] servers: the app would listen on port {port}, where the gateway does; \
         choose another port for one of them"
    );
    Ok(Recipe { command, port, log: config.log.format })
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let env = config::process_env();
    let source = config::find(args.config.config.as_deref(), &env);
    let name = source.name();
    let checked = config::load(source.clone(), &env)
        .and_then(|config| apology(&config).map(|()| config))
        .and_then(|config| certificate(&config).map(|certificate| (config, certificate)));
    match &checked {
        Ok((config, _)) if args.json => {
            let mut told = explain::as_json(&name, None);
            let probed = args.probe.then(|| probe::ask(config)).transpose()?;
            if let Some(trials) = &probed {
                told["services"] = probe::as_json(trials);
            }
            println!("{told}");
            return Ok(probed.map_or(ExitCode::SUCCESS, |trials| probe::verdict(&trials)));
        }
        Ok((config, certificate)) => {
            let mode = config.dialogue.mode.as_str();
            certificate.iter().for_each(|told| println!("{told}"));
            if let Some(acme) = config.server.acme.as_ref().filter(|acme| acme.listen.port() != 80) {
                println!(
                    "[server.acme] listen = {}: issuers ask on port 80, which must lead there",
                    acme.listen
                );
            }
            println!("{name}: valid; mode {mode}, listening on {}", config.server.listen);
            if args.probe {
                let trials = probe::ask(config)?;
                print!("{}", probe::table(&trials));
                return Ok(probe::verdict(&trials));
            }
        }
        Err(problems) if args.json => println!("{}", explain::as_json(&name, Some(problems))),
        Err(problems) => explain::print(&source, problems),
    }
    Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// That it can be played, as `run` wants it.
fn apology(config: &Config) -> Result<(), Problems> {
    let Some(file) = &config.dialogue.apology_audio else { return Ok(()) };
    edge::apology(config).map(|_| ()).map_err(|error| {
        let place = Place::File { file: file.display().to_string() };
        let help = "write a WAV, MP3, Ogg Vorbis or FLAC file there, or raw μ-law of 8 kHz".to_owned();
        Problems(vec![Problem { place, text: None, why: error.to_string(), help }])
    })
}

/// Whom the certificate is for and until when, if there is one.
fn certificate(config: &Config) -> Result<Option<String>, Problems> {
    let Some(tls) = &config.server.tls else { return Ok(None) };
    let file = tls.cert.display().to_string();
    if let Some(acme) = &config.server.acme {
        // One that is out of date, or cannot be read, is no reason not to start: another is asked for.
        let has = match edge::Certificate::load(tls) {
            Ok(certificate) if !certificate.is_expired() => format!("certified until {}", certificate.until),
            Ok(_) | Err(_) => "a certificate is asked for at the start".to_owned(),
        };
        return Ok(Some(format!("{}: {has}", acme.names.join(", "))));
    }
    let problem = |why: String, help: &str| {
        let place = Place::File { file: file.clone() };
        Problems(vec![Problem { place, text: None, why, help: help.to_owned() }])
    };
    let certificate = edge::Certificate::load(tls)
        .map_err(|error| problem(error.to_string(), "see [server.tls] cert and key"))?;
    let (name, until) = (&certificate.name, &certificate.until);
    if certificate.is_expired() {
        return Err(problem(format!("[server.tls] cert = {file}: expired on {until}"), "renew it"));
    }
    Ok(Some(format!("{file}: for {name} until {until}")))
}

/// Tells the running gateway to do something.
fn post(args: &ConfigArgs, path: &str) -> anyhow::Result<ExitCode> {
    let env = config::process_env();
    let source = config::find(args.config.as_deref(), &env);
    let admin = config::load_admin(&source, &env).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    println!("{}", admin::post(&admin, path)?);
    Ok(ExitCode::SUCCESS)
}

/// The configuration, and what it was read from. All its problems are one error.
fn load(args: &ConfigArgs) -> anyhow::Result<(Config, Source)> {
    let env = config::process_env();
    let source = config::find(args.config.as_deref(), &env);
    let config = config::load(source.clone(), &env).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok((config, source))
}
