//! Tells the program which commit and target it was built from.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for path in moves_with_the_commit() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    println!("cargo:rerun-if-env-changed=VOXGATE_COMMIT");
    let head = || git(&["rev-parse", "--short=12", "HEAD"]);
    let commit = std::env::var("VOXGATE_COMMIT").ok().or_else(head).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=VOXGATE_COMMIT={commit}");
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo:rustc-env=VOXGATE_TARGET={target}");
}

/// What git writes when another commit is checked out, wherever it keeps it (in a worktree `.git` is a
/// file): which branch it is, and which commit that is at. None where there is no git.
fn moves_with_the_commit() -> Vec<PathBuf> {
    // Only what is there: a path that is not would make every build start anew.
    let file = |name: &str| git(&["rev-parse", "--git-path", name]).map(PathBuf::from);
    let mut paths: Vec<_> = ["HEAD", "packed-refs"].into_iter().filter_map(file).collect();
    if let Some(branch) = git(&["symbolic-ref", "--quiet", "HEAD"]).and_then(|branch| file(&branch)) {
        // A branch that was packed has no file of its own until its next commit: its folder changes then.
        paths.extend(branch.ancestors().find(|path| path.exists()).map(Path::to_owned));
    }
    paths.retain(|path| path.exists());
    paths
}

fn git(args: &[&str]) -> Option<String> {
    let git = Command::new("git").args(args).output().ok()?;
    let said = String::from_utf8(git.stdout).ok()?.trim().to_owned();
    (git.status.success() && !said.is_empty()).then_some(said)
}
