//! The rows of the table: what was checked, what was seen, and what to do about it.

use std::fmt;

use serde_json::{Value, json};

pub(super) struct Report {
    url: String,
    rows: Vec<Row>,
}

struct Row {
    check: String,
    outcome: Outcome,
    /// The figure, or what came instead.
    seen: String,
}

enum Outcome {
    Pass,
    Skip,
    /// Well, and not for long.
    Warn(Fault),
    Fail(Fault),
}

/// Why a check failed.
pub(super) struct Fault {
    /// What Twilio would raise.
    pub(super) code: Option<String>,
    pub(super) cause: String,
    pub(super) cure: String,
}

impl Fault {
    pub(super) fn new(cause: impl Into<String>, cure: impl Into<String>) -> Fault {
        Fault { code: None, cause: cause.into(), cure: cure.into() }
    }

    pub(super) fn code(self, code: impl fmt::Display) -> Fault {
        Fault { code: Some(code.to_string()), ..self }
    }
}

impl Report {
    pub(super) fn new(url: &str) -> Report {
        Report { url: url.to_owned(), rows: Vec::new() }
    }

    pub(super) fn pass(&mut self, check: impl Into<String>, seen: impl Into<String>) {
        self.row(check.into(), Outcome::Pass, seen.into());
    }

    /// What could not be judged, and need not be.
    pub(super) fn skip(&mut self, check: impl Into<String>, seen: impl Into<String>) {
        self.row(check.into(), Outcome::Skip, seen.into());
    }

    /// What will be at fault soon.
    pub(super) fn warn(&mut self, check: impl Into<String>, seen: impl Into<String>, fault: Fault) {
        self.row(check.into(), Outcome::Warn(fault), seen.into());
    }

    pub(super) fn fail(&mut self, check: impl Into<String>, seen: impl Into<String>, fault: Fault) {
        self.row(check.into(), Outcome::Fail(fault), seen.into());
    }

    fn row(&mut self, check: String, outcome: Outcome, seen: String) {
        // What a server said must not move the cursor.
        let seen = seen.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        self.rows.push(Row { check, outcome, seen });
    }

    pub(super) fn append(&mut self, mut other: Report) {
        self.rows.append(&mut other.rows);
    }

    fn failed(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Fail(_))).count()
    }

    pub(super) fn is_go(&self) -> bool {
        self.failed() == 0
    }

    fn verdict(&self) -> &'static str {
        if self.is_go() { "GO" } else { "NO-GO" }
    }

    pub(super) fn to_json(&self, url: &str) -> Value {
        let rows = self.rows.iter().map(|Row { check, outcome, seen }| match outcome {
            Outcome::Pass => json!({"check": check, "result": "pass", "seen": seen}),
            Outcome::Skip => json!({"check": check, "result": "skip", "seen": seen}),
            Outcome::Warn(Fault { code, cause, cure }) => json!({
                "check": check, "result": "warn", "seen": seen, "code": code, "cause": cause, "cure": cure,
            }),
            Outcome::Fail(Fault { code, cause, cure }) => json!({
                "check": check, "result": "fail", "seen": seen, "code": code, "cause": cause, "cure": cure,
            }),
        });
        json!({"url": url, "verdict": self.verdict(), "failed": self.failed(), "checks": rows.collect::<Vec<_>>()})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.url)?;
        let width = self.rows.iter().map(|row| row.check.len()).max().unwrap_or(0);
        for Row { check, outcome, seen } in &self.rows {
            let word = match outcome {
                Outcome::Pass => "ok",
                Outcome::Skip => "-",
                Outcome::Warn(_) => "warn",
                Outcome::Fail(_) => "FAIL",
            };
            writeln!(f, "{word:<4}  {check:<width$}  {seen}")?;
            if let Outcome::Warn(Fault { code, cause, cure }) | Outcome::Fail(Fault { code, cause, cure }) =
                outcome
            {
                let code = code.as_ref().map(|code| format!(" (Twilio: {code})")).unwrap_or_default();
                writeln!(f, "      cause: {cause}{code}\n      cure:  {cure}")?;
            }
        }
        let (failed, all) = (self.failed(), self.rows.len());
        match failed {
            0 => writeln!(f, "\nGO"),
            _ => writeln!(f, "\nNO-GO: {failed} of {all} checks failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_row_says_why_and_what_to_do() {
        let mut report = Report::new("https://bot.example.com");
        report.pass("tcp", "connected in 3 ms");
        report.skip("call", "left out");
        report.warn("certificate", "3 days left", Fault::new("it expires soon", "renew it"));
        assert!(report.is_go() && report.to_string().ends_with("\nGO\n"));
        report.fail("handshake", "200\x1b[2J", Fault::new("it fell through", "check the path").code(31920));
        insta::assert_snapshot!(report.to_string(), @r"
        https://bot.example.com

        ok    tcp          connected in 3 ms
        -     call         left out
        warn  certificate  3 days left
              cause: it expires soon
              cure:  renew it
        FAIL  handshake    200 [2J
              cause: it fell through (Twilio: 31920)
              cure:  check the path

        NO-GO: 1 of 4 checks failed
        ");
        let json = report.to_json("u");
        assert_eq!((&json["verdict"], &json["failed"]), (&json!("NO-GO"), &json!(1)));
        assert_eq!(
            (&json["checks"][3]["code"], &json["checks"][0]["result"]),
            (&json!("31920"), &json!("pass"))
        );
    }
}
