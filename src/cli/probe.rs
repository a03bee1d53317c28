//! `voxgate check --probe`: what each service answers, one row each.

use std::process::ExitCode;
use std::time::Duration;

use crate::config::Config;
use crate::upstream::{Trial, try_all};

/// Tries every service once and prints what came; failure if one failed.
pub(super) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let trials = runtime.block_on(try_all(config));
    print!("{}", table(&trials));
    let failed = trials.iter().any(|trial| trial.result.is_err());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn table(trials: &[Trial]) -> String {
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
        assert_eq!(
            table(&[trial("stt", Ok("understood \"hi\"".to_owned())), failed]),
            "service         upstream  result    first byte    total  answer\n\
             stt             app       ok             12 ms  1234 ms  understood \"hi\"\n\
             tts.fallback 1  app       http_4xx           -  1234 ms  your config: …\n"
        );
    }
}
