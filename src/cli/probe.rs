//! `voxgate check --probe`: what each service answers, one row each.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;
use crate::upstream::{Trial, try_all};

/// Tries every service once.
pub(super) fn ask(config: &Config) -> anyhow::Result<Vec<Trial>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(try_all(config)))
}

/// Failure if one failed.
pub(super) fn verdict(trials: &[Trial]) -> ExitCode {
    let failed = trials.iter().any(|trial| trial.result.is_err());
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The rows for a program.
pub(super) fn as_json(trials: &[Trial]) -> Value {
    let rows = trials.iter().map(|trial| {
        let (result, answer) = match &trial.result {
            Ok(answer) => ("ok", answer),
            Err(failure) => (failure.kind.as_str(), &failure.why),
        };
        json!({
            "service": trial.name, "upstream": trial.upstream, "result": result, "answer": answer,
            "first_byte_ms": trial.first_byte.map(|took| took.as_millis()), "total_ms": trial.total.as_millis(),
        })
    });
    Value::Array(rows.collect())
}

/// The rows for people.
pub(super) fn table(trials: &[Trial]) -> String {
    let columns = |trial: &Trial| {
        let (word, what) = match &trial.result {
            Ok(answer) => ("ok", answer.clone()),
            Err(failure) => (failure.kind.as_str(), failure.why.clone()),
        };
        let first_byte = trial.first_byte.map_or_else(|| "-".to_owned(), ms);
        [trial.name.clone(), trial.upstream.clone(), word.to_owned(), first_byte, ms(trial.total), what]
    };
    let head = ["service", "upstream", "result", "first byte", "total", "answer"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(trials.iter().map(columns)).collect();
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for [name, upstream, word, first_byte, total, what] in &rows {
        let [a, b, c, d, e] = widths;
        text += &format!("{name:a$}  {upstream:b$}  {word:c$}  {first_byte:>d$}  {total:>e$}  {what}\n");
    }
    text
}

fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Failure, FailureKind};

    #[test]
    fn a_row_for_each() {
        let trial = |name: &str, result| Trial {
            name: name.to_owned(),
            upstream: "app".to_owned(),
            result,
            first_byte: Some(Duration::from_micros(12_900)),
            total: Duration::from_millis(1234),
        };
        let failure = Failure {
            upstream: "app".to_owned(),
            kind: FailureKind::Http4xx,
            why: "your config: …".to_owned(),
        };
        let failed = Trial { first_byte: None, ..trial("tts.fallback 1", Err(failure)) };
        let trials = [trial("stt", Ok("understood \"hi\"".to_owned())), failed];
        assert_eq!(
            as_json(&trials),
            json!([
                {"service": "stt", "upstream": "app", "result": "ok", "answer": "understood \"hi\"",
                 "first_byte_ms": 12, "total_ms": 1234},
                {"service": "tts.fallback 1", "upstream": "app", "result": "http_4xx",
                 "answer": "your config: …", "first_byte_ms": null, "total_ms": 1234},
            ])
        );
        assert_eq!(
            table(&trials),
            "service         upstream  result    first byte    total  answer\n\
             stt             app       ok             12 ms  1234 ms  understood \"hi\"\n\
             tts.fallback 1  app       http_4xx           -  1234 ms  your config: …\n"
        );
    }
}
