//! The pages of `docs`, done as a reader would: in a new folder the files that a page shows are written,
//! and its commands are run, in order, in one shell. What a page says a command prints has to be
//! printed. Only the ports are others, since tests run side by side.
//!
//! A block's first line names the file that it is (`# gateway.toml`); `sh` blocks are run; of `console`
//! blocks, lines that begin with `$ ` are run, and the others are what is printed, where `…` stands for
//! anything. Each step has to end well, unless its comment says `# exit status 1`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::{Captures, Regex};
use voxgate::call::FailureKind;
use voxgate::twilio::{codes, lint::Rule};

use crate::world::{Gateway, by_itself, free_port, project};

/// The ports that the pages use: the gateway's, the admin listener's, the app's and its services'.
const PORTS: [&str; 4] = ["8080", "9090", "5000", "7001"];
/// No page takes longer than this, in seconds; `timeout` ends it.
const LONGEST: &str = "120";

#[test]
fn put_it_in_front_of_flask() {
    follow("flask.md");
}

#[test]
fn change_it_under_live_calls() {
    follow("upgrade.md");
}

#[test]
fn tune_turn_taking() {
    follow("tuning.md");
}

#[test]
fn go_live() {
    follow("go-live.md");
}

#[test]
fn read_the_dashboards() {
    follow("dashboards.md");
    let page = fs::read_to_string(project().join("docs/dashboards.md")).unwrap();
    for name in ["calls", "proxy", "capacity"] {
        let dashboard = fs::read(project().join(format!("grafana/dashboards/{name}.json"))).unwrap();
        let dashboard: serde_json::Value = serde_json::from_slice(&dashboard).unwrap();
        for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
            let title = panel["title"].as_str().unwrap();
            assert!(
                page.contains(&format!("*{title}*")),
                "docs/dashboards.md does not tell of {name}: {title}"
            );
        }
    }
}

/// Whatever a user can be shown has its row in the page of errors.
#[test]
fn every_error() {
    follow("errors.md");
    let page = fs::read_to_string(project().join("docs/errors.md")).unwrap();
    let mut rows: Vec<String> = (31_900..32_000)
        .filter_map(codes::explain)
        .map(|e| format!("| {} | {} | {} |", e.code, e.meaning, e.look_at))
        .collect();
    rows.extend(Rule::ALL.map(|rule| {
        let code = rule.code().map(|code| code.to_string()).unwrap_or_default();
        format!("| `{}` | {code} | {} | {} |", rule.as_str(), rule.why(), rule.cure())
    }));
    // All there is to count is counted from the start.
    let metrics = Gateway::start("").admin_get("/metrics").1;
    let labels = |metric: &str, label: &str| {
        let pattern = format!(r#"(?m)^voxgate_{metric}\{{.*\b{label}="([^"]+)""#);
        let found: Vec<_> = Regex::new(&pattern)
            .unwrap()
            .captures_iter(&metrics)
            .map(|c| format!("| `{}` |", &c[1]))
            .collect();
        assert!(found.len() > 3, "{metric}: {found:?}");
        found
    };
    rows.extend(labels("calls_total", "reason"));
    rows.extend(labels("ws_handshakes_total", "result"));
    rows.extend(labels("media_frames_dropped_total", "reason"));
    rows.extend(FailureKind::ALL.map(|kind| format!("| `{}` |", kind.as_str())));
    for row in rows {
        assert!(page.contains(&row), "docs/errors.md has no row {row}");
    }
}

/// One command, and what it prints.
struct Step {
    line: usize,
    command: String,
    prints: Option<String>,
}

/// A page: the files it shows and the commands it gives.
struct Page {
    files: BTreeMap<String, String>,
    steps: Vec<Step>,
}

impl Page {
    fn read(name: &str) -> Page {
        let mut page = Page { files: BTreeMap::new(), steps: Vec::new() };
        let text = fs::read_to_string(project().join("docs").join(name)).unwrap();
        let mut lines = text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            let Some(kind) = line.trim().strip_prefix("```") else { continue };
            let indent = line.len() - line.trim_start().len();
            let block: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line.get(indent..).unwrap_or_default())
                .take_while(|line| !line.starts_with("```"))
                .collect();
            page.block(kind, &block, at + 2);
        }
        page
    }

    fn block(&mut self, kind: &str, block: &[&str], line: usize) {
        match kind {
            "sh" => self.steps.push(Step { line, command: block.join("\n"), prints: None }),
            "console" => {
                for (i, text) in block.iter().enumerate() {
                    match text.strip_prefix("$ ") {
                        Some(command) => {
                            let (command, prints) = (command.to_owned(), Some(String::new()));
                            self.steps.push(Step { line: line + i, command, prints });
                        }
                        None => {
                            let prints = self.steps.last_mut().and_then(|step| step.prints.as_mut());
                            writeln!(prints.expect("a console block begins with a command"), "{text}")
                                .unwrap();
                        }
                    }
                }
            }
            _ => {
                if let Some(name) = block.first().and_then(|first| first.strip_prefix("# ")) {
                    self.files.insert(name.to_owned(), block.join("\n") + "\n");
                }
            }
        }
    }
}

/// Does what the page says.
fn follow(name: &str) {
    let page = Page::read(name);
    let folder = std::env::temp_dir().join(format!("voxgate-docs-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join(".printed")).unwrap();
    let ports: Vec<(&str, String)> = PORTS.iter().map(|port| (*port, free_port().to_string())).collect();
    let here = |text: &str| with_ports(text, &ports);
    for (file, text) in &page.files {
        let mut text = here(text);
        if file == "gateway.toml" && !text.contains("[admin]") {
            write!(text, "\n[admin]\nlisten = \"127.0.0.1:{}\"\n", here("9090")).unwrap();
        }
        fs::write(folder.join(file), text).unwrap();
    }
    let mut script = String::from("set -euo pipefail\n");
    for (i, step) in page.steps.iter().enumerate() {
        let (line, command) = (step.line, here(&step.command));
        writeln!(script, "exec >.printed/{i} 2>&1; echo {line} >.line").unwrap();
        // A command that is meant to fail says so.
        match command.split_once("  # exit status 1") {
            Some((command, _)) => {
                writeln!(script, "if {command}; then echo it ended well; exit 9; fi").unwrap()
            }
            None => writeln!(script, "{command}").unwrap(),
        }
    }
    script.push_str("exec >.printed/end 2>&1; echo end >.line\n");
    let ended = shell(&folder, &script, &here("8080"));
    let printed = |i: usize| fs::read_to_string(folder.join(format!(".printed/{i}"))).unwrap_or_default();
    let at = fs::read_to_string(folder.join(".line")).unwrap_or_default();
    let last = page.steps.iter().rposition(|step| step.line.to_string() == at.trim());
    assert!(
        ended && at.trim() == "end",
        "docs/{name}, line {}: ended or stopped here\n{}",
        at.trim(),
        last.map(printed).unwrap_or_default()
    );
    for (i, step) in page.steps.iter().enumerate() {
        if let Some(prints) = &step.prints {
            let (expected, seen) = (here(prints), printed(i));
            assert!(
                matches(&expected, &seen),
                "docs/{name}, line {}: {}\nthe page says:\n{expected}\nit printed:\n{seen}",
                step.line,
                step.command
            );
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// A page's text with other ports. All at once: a port that is put there may have a page's in it.
fn with_ports(text: &str, ports: &[(&str, String)]) -> String {
    let written = ports.iter().map(|(port, _)| *port).collect::<Vec<_>>().join("|");
    let other = |found: &Captures<'_>| ports.iter().find(|(port, _)| *port == &found[0]).unwrap().1.clone();
    Regex::new(&format!(r"\b(?:{written})\b")).unwrap().replace_all(text, other).into_owned()
}

#[test]
fn a_port_is_replaced_once_and_as_a_whole() {
    let ports = [("8080", "15000".to_owned()), ("5000", "28080".to_owned())];
    let text = "listen = \"0.0.0.0:8080\", servers = [\"127.0.0.1:5000\"], 22050 Hz, 15000 bytes, 5000ms";
    let other = "listen = \"0.0.0.0:15000\", servers = [\"127.0.0.1:28080\"], 22050 Hz, 15000 bytes, 5000ms";
    assert_eq!(with_ports(text, &ports), other);
}

/// Runs the script with a reader's programs at hand; whether it came to its end. What it has started ends
/// with it.
fn shell(folder: &Path, script: &str, port: &str) -> bool {
    let programs = [
        Path::new(env!("CARGO_BIN_EXE_voxgate")).parent().unwrap().to_owned(),
        project().join(".venv/bin"),
        project().join(".venv/prometheus/usr/bin"),
    ];
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let path = programs.into_iter().chain(std::env::split_paths(&inherited)).collect::<Vec<PathBuf>>();
    let mut child = by_itself(Command::new("timeout"))
        .args([LONGEST, "bash", "-c", script])
        .current_dir(folder)
        .env("PATH", std::env::join_paths(path).unwrap())
        // What a page installs is there: nothing is fetched.
        .env("PYTHONPATH", packages())
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_NO_INDEX", "1")
        .env("PORT", port)
        .env("VOXGATE", project())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let ended = child.wait().unwrap();
    // `timeout` makes a group of its own, and all that the page has started is in it.
    let _ = Command::new("kill").args(["--", &format!("-{}", child.id())]).stderr(Stdio::null()).status();
    ended.success()
}

/// The Python packages that `tests/setup.sh` has installed.
fn packages() -> PathBuf {
    let versions = fs::read_dir(project().join(".venv/lib")).unwrap();
    let mut packages = versions.map(|version| version.unwrap().path().join("site-packages"));
    packages.find(|packages| packages.exists()).unwrap()
}

/// Whether that was printed: `…` is anything within a line, and alone in a line any lines; how many blanks
/// there are does not count.
fn matches(expected: &str, seen: &str) -> bool {
    let line = |line: &str| {
        let words = line.split_whitespace().map(regex::escape).collect::<Vec<_>>().join(" +");
        format!(" *{} *\n", words.replace('…', ".*"))
    };
    let pattern: String = expected
        .lines()
        .map(|wanted| if wanted.trim() == "…" { "(?:.*\n)*".to_owned() } else { line(wanted) })
        .collect();
    let seen = seen.trim_end();
    let ended = if seen.is_empty() { "" } else { "\n" };
    Regex::new(&format!("^{pattern}$")).unwrap().is_match(&format!("{seen}{ended}"))
}

#[test]
fn what_a_page_says_is_compared_line_by_line() {
    for (expected, seen, same) in [
        ("a\nb\n", "a\nb\n", true),
        ("a\n", "a\nb\n", false),
        ("a\nb\n", "a\n", false),
        ("a …\n", "a 17 ms\n", true),
        ("a … ms\n", "a 17 ms\n", true),
        ("a … s\n", "a 17 ms\n", false),
        ("…\nb\n", "x\ny\nb\n", true),
        ("…\nb\n", "x\ny\n", false),
        ("a\n…\n", "a\nx\ny\n", true),
        ("a  1\n", "a 1\n", true),
    ] {
        assert_eq!(matches(expected, seen), same, "{expected:?} {seen:?}");
    }
}
