//! The problems of a configuration for people and for programs: each with its place, the text with a
//! caret under it, why it is one, and what to do. What may be secret is masked.

use std::io::IsTerminal as _;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::config::{self, Place, Problem, Problems, Source};

/// Prints all of them to stderr, and how many there are.
pub(super) fn print(source: &Source, problems: &Problems) {
    let renderer = if std::io::stderr().is_terminal() { Renderer::styled() } else { Renderer::plain() };
    // It was read before; a file that has gone meanwhile is shown without its lines.
    let text = source.text().unwrap_or_default();
    for problem in &problems.0 {
        eprintln!("{}\n", one(problem, &text, &renderer));
    }
    let count = problems.0.len();
    eprintln!("voxgate: {}: {count} problem{}", source.name(), if count == 1 { "" } else { "s" });
}

/// As it is printed where there is no terminal.
pub fn explained(problem: &Problem, text: &str) -> String {
    one(problem, text, &Renderer::plain())
}

fn one(problem: &Problem, text: &str, renderer: &Renderer) -> String {
    let title = Level::ERROR.primary_title(problem.why.as_str());
    let help = Level::HELP.message(problem.help.as_str());
    let group = match &problem.place {
        Place::Text { file, span, .. }
            if text.is_char_boundary(span.start) && text.is_char_boundary(span.end) =>
        {
            let is_toml = !problem.why.starts_with("not TOML");
            let shown = problem.text.as_ref().map(|_| span.clone());
            let mut masked = config::masked(text, shown, !is_toml);
            let line = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
            if is_toml && problem.text.is_none() && !text[line..].trim_start().starts_with('[') {
                // A secret may be a number, too.
                let hidden = masked[span.clone()].replace(|c: char| c.is_ascii_alphanumeric(), "*");
                masked.replace_range(span.clone(), &hidden);
            }
            // Of a value over several lines the first is enough.
            let end = masked[span.clone()].find('\n').map_or(span.end, |at| span.start + at);
            let snippet = Snippet::source(masked).path(file.as_str());
            title.element(snippet.annotation(AnnotationKind::Primary.span(span.start..end))).element(help)
        }
        Place::Environment { name } => {
            let value = problem.text.as_deref().unwrap_or("***");
            let (source, from) = (format!("{name}={value}"), name.len() + 1);
            let end = source.len();
            let snippet = Snippet::source(source).path("(environment)").line_numbering(false);
            title.element(snippet.annotation(AnnotationKind::Primary.span(from..end))).element(help)
        }
        Place::Text { file, .. } | Place::File { file } => {
            Group::with_title(title).element(annotate_snippets::Origin::path(file.as_str())).element(help)
        }
    };
    renderer.render(&[group])
}

pub(super) fn as_json(config: &str, problems: Option<&Problems>) -> Value {
    let problem = |Problem { place, text, why, help }: &Problem| {
        let mut json = json!({"text": text, "why": why, "help": help});
        match place {
            Place::Text { file, line, column, .. } => {
                json["file"] = file.as_str().into();
                json["line"] = (*line).into();
                json["column"] = (*column).into();
            }
            Place::File { file } => json["file"] = file.as_str().into(),
            Place::Environment { name } => json["environment"] = name.as_str().into(),
        }
        json
    };
    let listed: Vec<Value> = problems.iter().flat_map(|problems| &problems.0).map(problem).collect();
    json!({"config": config, "valid": problems.is_none(), "problems": listed})
}
