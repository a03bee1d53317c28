//! The commands. The only room that prints, and the only one where `anyhow` is at home.

pub mod call;
mod probe;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config};
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
    /// Run the gateway (the default)
    #[command(after_help = "Example: PORT=8080 voxgate run --config gateway.toml")]
    Run(RunArgs),
    /// Read the configuration as `run` would, and name every problem in it
    #[command(after_help = "Example: voxgate check --probe --config gateway.toml")]
    Check(CheckArgs),
    /// Play Twilio against a media URL
    Call(Box<call::CallArgs>),
}

#[derive(Args, Debug, Default)]
struct RunArgs {
    /// The configuration; else $VOXGATE_CONFIG, else ./gateway.toml, else the built-in defaults
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct CheckArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Ask each service once, and print what it answers
    #[arg(long)]
    probe: bool,
}

/// Does what the command line says. Wrong usage ends the process with status 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run(&args),
        Command::Check(args) => check(&args),
        Command::Call(args) => call::run(*args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("voxgate: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let (config, source) = load(args)?;
    observe::init_log(config.log.format);
    tracing::info!(config = source, "CONFIG");
    edge::serve(config).context("cannot start")?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (config, source) = load(&args.run)?;
    let mode = config.dialogue.mode.as_str();
    println!("{source}: valid; mode {mode}, listening on {}", config.server.listen);
    if args.probe { probe::run(&config) } else { Ok(ExitCode::SUCCESS) }
}

/// The configuration, and what it was read from. All its problems are one error.
fn load(args: &RunArgs) -> anyhow::Result<(Config, String)> {
    let env = config::process_env();
    let source = config::find(args.config.as_deref(), &env);
    let name = source.name();
    let config = config::load(source, &env).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok((config, name))
}
