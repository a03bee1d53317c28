//! Each fault by itself, what is mended of it, and that nothing else is touched.

use proptest::prelude::*;

use super::*;

const SITE: Site<'_> = Site {
    public_url: Some("https://bot.example.com"),
    media_path: "/ws/twilio-media",
    stream_status: "/webhook/stream_status",
};

const SOUND: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Response>
  <Connect>
    <Stream url="wss://bot.example.com/ws/twilio-media" name='a "b"'
            statusCallback="https://bot.example.com/webhook/stream_status">
      <Parameter name="call_sid" value="CA1"/>
    </Stream>
  </Connect>
  <Hangup/>
</Response>
"#;

fn rules(twiml: &str) -> Vec<Rule> {
    lint(twiml.as_bytes(), &SITE).findings.iter().map(|finding| finding.rule).collect()
}

#[test]
fn sound_twiml_is_left_alone() {
    let linted = lint(SOUND.as_bytes(), &SITE);
    assert_eq!((linted.findings, linted.mended), (vec![], None));
    assert_eq!(linted.streams[0].url, "wss://bot.example.com/ws/twilio-media");
    assert_eq!(linted.streams[0].parameters, [("call_sid".to_owned(), "CA1".to_owned())]);
    for other in [
        "<Response><Say>Hello &amp; welcome</Say><Gather action=\"/menu\"/></Response>",
        "\u{feff}<Response/>",
        "<!-- a --><Response><Redirect>/x?a=1&amp;b=2</Redirect></Response>",
        "<Response><Start><Stream url=\"wss://elsewhere/tap\"/></Start></Response>",
        "<Response><Pause length=\"2\"/><Hangup/></Response>",
    ] {
        assert_eq!(rules(other), [], "{other}");
    }
    let by_action = SOUND.replace("<Connect>", "<Connect action=\"/after\">").replace("  <Hangup/>\n", "");
    assert_eq!(rules(&by_action), [], "what `action` answers goes on with the call");
}

#[test]
fn a_byte_order_mark_moves_nothing() {
    let told = SOUND.replace("wss://bot", "ws://bot").replace("  <Hangup/>\n", "");
    let mended = |twiml: &str| lint(twiml.as_bytes(), &SITE).mended.expect("something to mend");
    assert_eq!(mended(&format!("\u{feff}{told}")), format!("\u{feff}{}", mended(&told)));
    assert_eq!(rules("\u{feff}\u{feff}<Response/>"), [Rule::NotXml]);
}

#[test]
fn each_fault_is_found_and_the_safe_ones_are_mended() {
    let sound = |from: &str, to: &str| {
        assert!(SOUND.contains(from), "{from}");
        SOUND.replace(from, to)
    };
    let url = "wss://bot.example.com/ws/twilio-media";
    let status = "\n            statusCallback=\"https://bot.example.com/webhook/stream_status\"";
    for (twiml, rule, mended) in [
        (format!("\n  {SOUND}"), Rule::LeadingSpace, Some("<?xml")),
        (sound(url, "ws://bot.example.com/ws/twilio-media"), Rule::Scheme, Some(url)),
        (sound(url, "https://bot.example.com/ws/twilio-media"), Rule::Scheme, Some(url)),
        (sound("twilio-media\"", "twilio-media?a=1&amp;b=2\""), Rule::Query, Some(url)),
        (sound(".com/ws", ".com//ws"), Rule::DoubleSlash, Some(url)),
        (sound(url, "wss://{{ host }}/ws/twilio-media"), Rule::BadUrl, None),
        (sound(url, ""), Rule::BadUrl, None),
        (sound("<Stream ", "<Stream track=\"both_tracks\" "), Rule::Track, Some("<Stream url=")),
        (sound(status, ""), Rule::NoStatusCallback, Some(&status[13..])),
        (sound("https://bot.example.com/webhook", "/webhook"), Rule::StatusCallback, Some(&status[13..])),
        (sound("https://bot.example.com/webhook", "webhook"), Rule::StatusCallback, None),
        (sound("  <Hangup/>\n", ""), Rule::NoClosingVerb, Some("</Connect><Hangup/>")),
        (sound("<Hangup/>", "<Pause length=\"40\"/>"), Rule::Pause, None),
        (sound("  <Connect>", "  <Play>a.mp3</Play><Connect>"), Rule::Play, None),
        (sound("call_sid", "sid"), Rule::NoCallSid, None),
        (sound("\"CA1\"", &format!("\"{}\"", "x".repeat(493))), Rule::Parameter, None),
        (sound("Connect>", "Start>"), Rule::Start, None),
        (sound("Connect>", "connect>"), Rule::Case, None),
        (sound("Connect>", "Dial>"), Rule::Misplaced, None),
        (
            sound("</Stream>", "</Stream><Stream url=\"wss://b/c\" statusCallback=\"https://b\"/>"),
            Rule::SeveralStreams,
            None,
        ),
        ("<html><body>500</body></html>".to_owned(), Rule::NotXml, None),
        ("<!DOCTYPE html><html lang=en><br></html>".to_owned(), Rule::NotXml, None),
        (String::new(), Rule::NotXml, None),
        ("Not Found".to_owned(), Rule::NotXml, None),
        (sound("</Connect>", ""), Rule::NotXml, None),
        (SOUND.replace("</Response>", ""), Rule::NotXml, None),
        (format!("{SOUND}<Response/>"), Rule::NotXml, None),
        (format!("{SOUND} and more"), Rule::NotXml, None),
        (sound("twilio-media\"", "twilio-media?a=1&b=2\""), Rule::NotXml, None),
    ] {
        let linted = lint(twiml.as_bytes(), &SITE);
        let finding = linted.findings.iter().find(|finding| finding.rule == rule);
        let finding = finding.unwrap_or_else(|| panic!("{rule:?} in {twiml}: {:?}", linted.findings));
        assert_eq!(finding.mended, mended.is_some(), "{finding:?}");
        assert_eq!(linted.mended.is_some(), mended.is_some(), "{twiml}");
        if let (Some(text), Some(wanted)) = (linted.mended, mended) {
            assert!(text.contains(wanted), "{text}");
            assert_eq!(rules(&text), [], "{text}");
        }
    }
    let long = SOUND.replace("CA1", &"x".repeat(LONGEST_TWIML));
    assert!(rules(&long).contains(&Rule::TooLong));
}

#[test]
fn what_is_mended_leaves_the_rest_as_it_was() {
    let twiml = SOUND.replace("wss:", "http:").replace("  <Hangup/>\n", "");
    let mended = lint(twiml.as_bytes(), &SITE).mended.unwrap();
    assert!(mended.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response>\n  <Connect>\n"));
    assert!(mended.ends_with("</Connect><Hangup/>\n</Response>\n"), "{mended}");
    assert!(mended.contains("name=\"a &quot;b&quot;\""), "{mended}");
    let unknown = Site { public_url: None, ..SITE };
    let without = SOUND.replace("statusCallback", "x");
    let linted = lint(without.as_bytes(), &unknown);
    assert_eq!((linted.mended, linted.findings[0].mended), (None, false), "nobody knows the URL");
}

#[test]
fn a_query_is_not_told() {
    let linted = lint(SOUND.replace("twilio-media\"", "twilio-media?token=s3cret\"").as_bytes(), &SITE);
    assert!(!format!("{:?}", linted.findings).contains("s3cret"));
}

proptest! {
    #[test]
    fn no_text_upsets_it(text in r#"(<|>|</|/>|"|'|=|&|;|Response|Connect|Stream|url|wss://|\?|[ -~]|\PC){0,60}"#) {
        let linted = lint(text.as_bytes(), &SITE);
        if let Some(mended) = linted.mended {
            let again = lint(mended.as_bytes(), &SITE);
            prop_assert!(again.findings.iter().all(|finding| !finding.mended), "{}", mended);
        }
    }
}
