//! Looks at TwiML on its way to Twilio: finds what would make the stream fail there, and mends what
//! can be mended without a guess. Everything that is not at fault keeps its bytes.

mod rule;
mod url;

use std::ops::Range;

use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::{BytesStart, Event};

pub use rule::Rule;

/// Twilio takes no more TwiML than this (11750).
pub const LONGEST_TWIML: usize = 64 * 1024;
/// Name and value of a `<Parameter>`, in characters.
pub(super) const LONGEST_PARAMETER: usize = 500;

const MARK: char = '\u{feff}';

/// What the TwiML should point to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Site<'a> {
    /// `https://bot.example.com`, where it is known.
    pub public_url: Option<&'a str>,
    pub media_path: &'a str,
    pub stream_status: &'a str,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    /// What was seen, without what may be secret.
    pub seen: String,
    /// [`Linted::mended`] is without it.
    pub mended: bool,
}

/// A `<Connect><Stream>` of the document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    pub url: String,
    pub parameters: Vec<(String, String)>,
}

/// What came of a look at a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linted {
    pub findings: Vec<Finding>,
    pub streams: Vec<Stream>,
    /// The document without what could be mended; `None` where that was nothing.
    pub mended: Option<String>,
}

pub fn lint(twiml: &[u8], site: &Site<'_>) -> Linted {
    let mut looking =
        Looking { site, stack: Vec::new(), connect: None, edits: Vec::new(), done: Linted::default() };
    if twiml.len() > LONGEST_TWIML {
        looking.find(Rule::TooLong, format!("{} bytes", twiml.len()));
    }
    let text = match std::str::from_utf8(twiml) {
        Ok(text) => text,
        Err(error) => {
            looking.find(Rule::NotXml, error.to_string());
            return looking.done;
        }
    };
    // A byte order mark may stand there; a blank line from a template may not.
    let start = text.find('<').unwrap_or(0);
    if start > 0 && text[start..].starts_with("<?xml") && text[..start].trim().is_empty() {
        looking.find(Rule::LeadingSpace, format!("{start} blank bytes"));
        looking.edits.push((0..start, String::new()));
    }
    if let Err(why) = looking.walk(text) {
        // What was seen up to there says nothing about a document that Twilio does not read.
        looking.done.findings.retain(|finding| finding.rule == Rule::TooLong);
        looking.edits.clear();
        looking.find(Rule::NotXml, why);
    }
    looking.finish(text)
}

struct Looking<'a> {
    site: &'a Site<'a>,
    /// The names of the open elements.
    stack: Vec<String>,
    /// The last `<Connect>` with a stream in it.
    connect: Option<Connect>,
    edits: Vec<(Range<usize>, String)>,
    done: Linted,
}

struct Connect {
    has_action: bool,
    streams: usize,
    /// Where it ends, once it has.
    end: Option<usize>,
    /// The last verb behind it.
    next: Option<String>,
}

/// The names that start a stream, as Twilio writes them.
const NAMES: [&str; 8] =
    ["Response", "Connect", "Start", "Stream", "Parameter", "Hangup", "Redirect", "Play"];

impl Looking<'_> {
    fn find(&mut self, rule: Rule, seen: impl Into<String>) {
        let seen: String = seen.into().chars().filter(|c| !c.is_control()).take(200).collect();
        self.done.findings.push(Finding { rule, seen, mended: rule.is_safe_to_mend() });
    }

    /// Fails where Twilio's parser would.
    fn walk(&mut self, text: &str) -> Result<(), String> {
        // The reader would pass over a byte order mark, and not count it.
        let unmarked = text.strip_prefix(MARK).unwrap_or(text);
        if unmarked.starts_with(MARK) {
            return Err("text outside of <Response>".into());
        }
        let mark = text.len() - unmarked.len();
        let mut reader = Reader::from_str(unmarked);
        let mut roots = 0;
        loop {
            let from = mark + position(&reader);
            let event = reader.read_event().map_err(|error| error.to_string())?;
            let to = mark + position(&reader);
            match event {
                Event::Start(tag) => {
                    roots += usize::from(self.stack.is_empty());
                    self.open(&tag, from..to, false)?;
                    self.stack.push(tag.name().as_ref().to_owned());
                }
                Event::Empty(tag) => {
                    roots += usize::from(self.stack.is_empty());
                    self.open(&tag, from..to, true)?;
                    self.close(tag.name().as_ref(), to);
                }
                Event::End(tag) => {
                    self.stack.pop();
                    self.close(tag.name().as_ref(), to);
                }
                Event::Text(words) if self.stack.is_empty() && !words.trim().is_empty() => {
                    return Err("text outside of <Response>".into());
                }
                Event::GeneralRef(_) if self.stack.is_empty() => {
                    return Err("text outside of <Response>".into());
                }
                Event::Eof => break,
                Event::Text(_)
                | Event::GeneralRef(_)
                | Event::CData(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_) => {}
            }
        }
        match (self.stack.last(), roots) {
            (Some(open), _) => Err(format!("<{open}> is not closed")),
            (None, 1) => Ok(()),
            (None, 0) => Err("nothing in it".into()),
            (None, _) => Err("more than one root".into()),
        }
    }

    fn open(&mut self, tag: &BytesStart<'_>, span: Range<usize>, empty: bool) -> Result<(), String> {
        let attributes = attributes(tag)?;
        let binding = tag.name();
        let name: &str = binding.as_ref();
        if self.stack.is_empty() && !name.eq_ignore_ascii_case("Response") {
            return Err(format!("the root is <{name}>, not <Response>"));
        }
        if let Some(right) = NAMES.iter().find(|right| right.eq_ignore_ascii_case(name) && **right != name) {
            self.find(Rule::Case, format!("<{name}> for <{right}>"));
        }
        let value = |key: &str| attributes.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        match (self.stack.last().map_or("", String::as_str), name) {
            ("Response", "Connect") if self.stack.len() == 1 => {
                let has_action = value("action").is_some_and(|action| !action.is_empty());
                self.connect = Some(Connect { has_action, streams: 0, end: None, next: None });
            }
            ("Connect", "Stream") => self.connected(&attributes, span, empty),
            ("Start", "Stream") => {
                let judged = url::judge(value("url").unwrap_or_default());
                if judged.path == self.site.media_path {
                    self.find(Rule::Start, format!("<Start><Stream url=\"…{}\">", judged.path));
                }
            }
            (_, "Stream") => self.find(Rule::Misplaced, "<Stream>"),
            ("Stream", "Parameter") => {
                let (name, value) = (value("name").unwrap_or_default(), value("value").unwrap_or_default());
                let length = name.chars().count() + value.chars().count();
                if length > LONGEST_PARAMETER {
                    self.find(Rule::Parameter, format!("{name:.40}: {length} characters"));
                }
                if let Some(stream) = self.done.streams.last_mut() {
                    stream.parameters.push((name.to_owned(), value.to_owned()));
                }
            }
            ("Response", "Play") => self.find(Rule::Play, "<Play>"),
            _ => {}
        }
        if self.stack.len() == 1
            && name != "Connect"
            && let Some(connect) = &mut self.connect
            && connect.end.is_some()
        {
            connect.next = Some(name.to_owned());
        }
        Ok(())
    }

    fn connected(&mut self, attributes: &[(String, String)], span: Range<usize>, empty: bool) {
        let value = |key: &str| attributes.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let mut wanted = attributes.to_vec();
        let set = |wanted: &mut Vec<(String, String)>, key: &str, value: String| match wanted
            .iter_mut()
            .find(|(k, _)| k == key)
        {
            Some((_, old)) => *old = value,
            None => wanted.push((key.to_owned(), value)),
        };
        if let Some(connect) = &mut self.connect {
            connect.streams += 1;
            if connect.streams == 2 {
                self.find(Rule::SeveralStreams, "a second <Stream> in one <Connect>");
            }
        }
        // A stream of Twilio's Marketplace has a connector, and no url.
        let url = value("url").unwrap_or_default();
        let judged = url::judge(url);
        if value("connectorName").is_none() {
            let shown = match url.find(['?', '#']) {
                Some(at) => format!("{}…", &url[..=at]),
                None => url.to_owned(),
            };
            judged.rules.iter().for_each(|rule| self.find(*rule, shown.clone()));
            if !judged.rules.is_empty() {
                set(&mut wanted, "url", judged.mended);
            }
        }
        if let Some(track) = value("track").filter(|track| *track != "inbound_track") {
            self.find(Rule::Track, format!("track=\"{track}\""));
            wanted.retain(|(key, _)| key != "track");
        }
        let absolute = |path: &str| Some(format!("{}{path}", self.site.public_url?));
        let (rule, seen, mended) = match value("statusCallback") {
            None | Some("") => {
                let ours = judged.path.starts_with(self.site.media_path);
                (
                    Some(Rule::NoStatusCallback),
                    "<Stream>".to_owned(),
                    absolute(self.site.stream_status).filter(|_| ours),
                )
            }
            Some(callback) if !callback.starts_with("https://") && !callback.starts_with("http://") => {
                let mended = absolute(callback).filter(|_| callback.starts_with('/'));
                (Some(Rule::StatusCallback), callback.to_owned(), mended)
            }
            Some(_) => (None, String::new(), None),
        };
        if let Some(rule) = rule {
            self.find(rule, seen);
            match (mended, self.done.findings.last_mut()) {
                (Some(callback), _) => set(&mut wanted, "statusCallback", callback),
                (None, Some(finding)) => finding.mended = false,
                (None, None) => {}
            }
        }
        if wanted != attributes {
            self.edits.push((span, write_tag("Stream", &wanted, empty)));
        }
        self.done.streams.push(Stream { url: url.to_owned(), parameters: Vec::new() });
    }

    fn close(&mut self, name: &str, at: usize) {
        match name {
            "Stream" if self.stack.last().is_some_and(|parent| parent == "Connect") => {
                let told = |stream: &Stream| stream.parameters.iter().any(|(name, _)| name == "call_sid");
                if !self.done.streams.last().is_some_and(told) {
                    self.find(Rule::NoCallSid, "<Stream>");
                }
            }
            "Connect" if self.stack.len() == 1 => {
                if let Some(connect) = self.connect.as_mut().filter(|connect| connect.streams > 0) {
                    connect.end = Some(at);
                }
            }
            _ => {}
        }
    }

    fn finish(mut self, text: &str) -> Linted {
        if !self.done.findings.iter().any(|finding| finding.rule == Rule::NotXml)
            && let Some(Connect { has_action, end: Some(end), next, .. }) = self.connect.take()
        {
            match next.as_deref() {
                None if !has_action => {
                    self.find(Rule::NoClosingVerb, "</Connect></Response>");
                    self.edits.push((end..end, "<Hangup/>".to_owned()));
                }
                Some("Pause") => self.find(Rule::Pause, "<Pause> is the last verb"),
                None | Some(_) => {}
            }
        }
        if !self.edits.is_empty() {
            let mut mended = text.to_owned();
            self.edits.sort_by_key(|(range, _)| range.start);
            for (range, with) in self.edits.iter().rev() {
                mended.replace_range(range.clone(), with);
            }
            self.done.mended = Some(mended);
        }
        self.done
    }
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// Names and what their values mean. Fails on what is no XML.
fn attributes(tag: &BytesStart<'_>) -> Result<Vec<(String, String)>, String> {
    tag.attributes()
        .map(|attribute| {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value = attribute
                .normalized_value(quick_xml::XmlVersion::Implicit1_0)
                .map_err(|error| error.to_string())?;
            Ok((attribute.key.as_ref().to_owned(), value.into_owned()))
        })
        .collect()
}

fn write_tag(name: &str, attributes: &[(String, String)], empty: bool) -> String {
    let mut tag = format!("<{name}");
    for (key, value) in attributes {
        tag.push_str(&format!(" {key}=\"{}\"", escape(value.as_str())));
    }
    tag.push_str(if empty { "/>" } else { ">" });
    tag
}

#[cfg(test)]
mod tests;
