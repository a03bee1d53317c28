//! TwiML of the app's, on its way to Twilio.

use quick_xml::Reader;
use quick_xml::events::Event;
use voxgate::twilio::lint::{Finding, LONGEST_TWIML, Linted, Rule, Site, lint};

const SITE: Site<'static> = Site {
    public_url: Some("https://bot.example.com"),
    media_path: "/ws/twilio-media",
    stream_status: "/webhook/stream_status",
};

/// What is mended can be read, has the streams and verbs that it had, and none of the faults that were
/// said to be mended; mending it again finds nothing to mend.
pub fn run(data: &[u8]) {
    for site in [SITE, Site { public_url: None, ..SITE }] {
        let linted = lint(data, &site);
        for Finding { seen, .. } in &linted.findings {
            assert!(seen.chars().count() <= 200 && !seen.contains(char::is_control), "{seen:?}");
        }
        let long = linted.findings.iter().any(|finding| finding.rule == Rule::TooLong);
        assert_eq!(long, data.len() > LONGEST_TWIML);
        let Some(mended) = &linted.mended else {
            continue;
        };
        let text = std::str::from_utf8(data).expect("what is mended was text");
        let not_xml = linted.findings.iter().find(|finding| finding.rule == Rule::NotXml);
        assert_eq!(not_xml, None, "no XML was mended");
        assert!(mended.len() <= 8 * text.len() + 1024, "{} bytes of {}", mended.len(), text.len());

        let again = lint(mended.as_bytes(), &site);
        let kept = |linted: &Linted| {
            let all = linted.streams.iter().map(|stream| stream.parameters.clone());
            all.collect::<Vec<_>>()
        };
        assert_eq!(kept(&again), kept(&linted), "{text}\n{mended}");
        let grown = mended.len() > LONGEST_TWIML;
        for finding in again.findings.iter().filter(|finding| !grown || finding.rule != Rule::TooLong) {
            assert!(!finding.mended, "{finding:?} in\n{mended}\nof\n{text}");
            let known = linted.findings.iter().any(|before| before.rule == finding.rule && !before.mended);
            assert!(known, "{finding:?} is new in\n{mended}\nof\n{text}");
        }
        assert_eq!(again.mended, None, "{text}\n{mended}");
        let (before, after) = (names(text), names(mended));
        let added = after.len().saturating_sub(before.len());
        assert!(added <= 1 && before.iter().all(|name| after.contains(name)), "{text}\n{mended}");
    }
}

/// The elements of a document, in order.
fn names(text: &str) -> Vec<String> {
    let mut reader = Reader::from_str(text);
    let mut names = Vec::new();
    loop {
        match reader.read_event().expect("XML") {
            Event::Start(tag) | Event::Empty(tag) => {
                names.push(format!("{:?}", tag.name()));
            }
            Event::Eof => return names,
            _ => {}
        }
    }
}
