//! `gateway.toml` and the environment: as written, then as meant.
//!
//! [`find`] says which file counts, [`load`] reads it. The environment is an argument, so that a
//! test and `voxgate check` see exactly what `voxgate run` would.
//!
//! There is no serde mirror of the file: serde stops at the first error and loses positions on the
//! way, and an operator wants every problem at once, each with its line. So `written` walks the
//! parsed document with typed getters that note what was wrong, and `resolve` is the list of keys,
//! ranges and meanings, each said once.

mod defaults;
mod meant;
mod problem;
mod resolve;
mod values;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use meant::*;
pub use problem::{Place, Problem, Problems};

/// The file that ships with voxgate, and what counts where there is none.
pub const SHIPPED: &str = include_str!("../../gateway.toml");

/// Environment variables by name.
pub type Env = BTreeMap<String, String>;

/// The variables of this process. One that is not Unicode is left out: none of ours would be.
pub fn process_env() -> Env {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// A text from elsewhere; `file:` paths in it are relative to the working folder.
    Text {
        name: String,
        text: String,
    },
    /// [`SHIPPED`].
    Default,
}

/// `--config`, else `VOXGATE_CONFIG`, else `gateway.toml` in the working folder, else the built-in.
pub fn find(cli: Option<&Path>, env: &Env) -> Source {
    let named = env.get("VOXGATE_CONFIG").filter(|path| !path.is_empty()).map(Path::new);
    let here = || Some(Path::new("gateway.toml")).filter(|path| path.exists());
    match cli.or(named).or_else(here) {
        Some(path) => Source::File(path.to_owned()),
        None => Source::Default,
    }
}

/// Reads a configuration: the environment first, then the file, then the defaults.
pub fn load(source: Source, env: &Env) -> Result<Config, Problems> {
    match source {
        Source::File(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(&path).map_err(|e| Problems::unreadable(&name, &e))?;
            resolve::resolve(&name, &text, path.parent().unwrap_or(Path::new("")), env)
        }
        Source::Text { name, text } => resolve::resolve(&name, &text, Path::new(""), env),
        Source::Default => resolve::resolve("built-in gateway.toml", SHIPPED, Path::new(""), env),
    }
}
