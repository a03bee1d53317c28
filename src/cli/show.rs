//! `voxgate config`: every value that holds with its origin, and the schema for editors.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{ConfigArgs, explain};
use crate::config;

#[derive(Args, Debug)]
#[command(after_help = "Example: voxgate config print --config gateway.toml")]
pub(super) struct ShowArgs {
    #[command(subcommand)]
    command: Show,
}

#[derive(Debug, Subcommand)]
enum Show {
    /// Print every value that holds, as TOML, with where it comes from; secrets are masked
    #[command(after_help = "Example: EOU_MS=600 voxgate config print --config gateway.toml")]
    Print(ConfigArgs),
    /// Print the JSON Schema of gateway.toml, by which editors complete and check it
    #[command(after_help = "\
Example: voxgate config schema >gateway.schema.json
With Taplo or Even Better TOML, begin gateway.toml with
  #:schema ./gateway.schema.json")]
    Schema,
}

pub(super) fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Show::Schema => println!("{:#}", config::schema()),
        Show::Print(args) => {
            let env = config::process_env();
            let source = config::find(args.config.as_deref(), &env);
            match config::print(&source, &env) {
                Ok(entries) => print(&entries),
                Err(problems) => {
                    explain::print(&source, &problems);
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(entries: &[config::Entry]) {
    // A key below its table, a table once.
    let mut tables: Vec<&str> = entries.iter().map(|entry| entry.table.as_str()).collect();
    tables.dedup();
    let mut shown: Vec<&str> = Vec::new();
    for table in tables {
        if shown.contains(&table) {
            continue;
        }
        shown.push(table);
        println!("[{table}]");
        let own: Vec<_> = entries.iter().filter(|entry| entry.table == table).collect();
        let assignment = |entry: &config::Entry| format!("{} = {}", entry.key, entry.value);
        let width = own.iter().map(|entry| assignment(entry).chars().count()).max().unwrap_or(0).min(50);
        for entry in own {
            println!("{:<width$}  # {}", assignment(entry), entry.origin);
        }
        println!();
    }
}
