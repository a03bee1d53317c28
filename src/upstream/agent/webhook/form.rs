//! What a reply is by its beginning, where its type does not tell: many an app streams events as
//! `text/html`, since Flask calls so whatever it is not told about, or lines of JSON as
//! `application/json`. What can be told at once is told at once, so that text is spoken as it comes.

use serde_json::{Map, Value};

/// How a body looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Server-sent events.
    Events,
    /// An object a line.
    Lines,
    /// One object.
    Object,
    Markup,
    Text,
    /// White space.
    Nothing,
}

const MARK: &[u8] = "\u{feff}".as_bytes();

/// Without the mark and the white space before it.
pub(super) fn begin(body: &[u8]) -> &[u8] {
    body.strip_prefix(MARK).unwrap_or(body).trim_ascii_start()
}

/// How this looks; `None` if more of it must come first. `complete`: no more will.
pub(super) fn look(begun: &[u8], complete: bool) -> Option<Look> {
    if MARK.starts_with(begun) && !complete {
        return None;
    }
    let body = begin(begun);
    match body.first() {
        None if complete => Some(Look::Nothing),
        None => None,
        Some(b'{') => object_or_lines(body, complete),
        Some(b'<') => Some(Look::Markup),
        Some(_) => events_or_text(body, complete),
    }
}

/// A first line that is a piece of a reply is one of several; so is one with another object behind it.
fn object_or_lines(body: &[u8], complete: bool) -> Option<Look> {
    let end = body.iter().position(|b| matches!(b, b'\n' | b'\r'));
    let Some(end) = end else { return complete.then_some(Look::Object) };
    let (line, rest) = body.split_at(end);
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(line) else { return Some(Look::Object) };
    if object.get("delta").is_some_and(Value::is_string) {
        return Some(Look::Lines);
    }
    match rest.trim_ascii_start().first() {
        Some(b'{') => Some(Look::Lines),
        Some(_) => Some(Look::Object),
        None => complete.then_some(Look::Object),
    }
}

/// Events are known by the first line of data, which is an object or the end; comments and other fields
/// may come before it. A sentence may well begin with "Event:".
fn events_or_text(body: &[u8], complete: bool) -> Option<Look> {
    for line in body.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
        let whole = line.ends_with(b"\n") || line.ends_with(b"\r");
        let line = line.trim_ascii_end();
        if let Some(data) = line.strip_prefix(b"data:") {
            match data.trim_ascii_start().first() {
                Some(b'{' | b'[') => return Some(Look::Events),
                Some(_) => return Some(Look::Text),
                // An event without data says nothing.
                None if whole => {}
                None if complete => return Some(Look::Text),
                None => return None,
            }
        }
        let fields: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];
        let may_be = if whole {
            line.is_empty() || fields.iter().any(|field| line.starts_with(field))
        } else {
            fields.iter().any(|field| line.starts_with(field) || field.starts_with(line))
        };
        if !may_be {
            return Some(Look::Text);
        }
    }
    complete.then_some(Look::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_known_by_its_beginning_wherever_it_is_cut() {
        for (body, expected) in [
            ("data: {\"delta\":\"Hi\"}\n\n", Look::Events),
            ("data:[DONE]\n\n", Look::Events),
            ("data:\n\ndata: {\"delta\":\"Hi\"}\n\n", Look::Events),
            ("event: start\ndata:\n\ndata: {", Look::Events),
            ("data: \n\nIt is eight.", Look::Text),
            (": ping\n\nevent: delta\r\nid: 7\nretry: 9\ndata: {", Look::Events),
            ("\u{feff}\n data: {\"delta\":\"Hi\"}", Look::Events),
            ("{\"delta\":\"Hi\"}\n{\"delta\":\" you\"}\n", Look::Lines),
            ("{\"delta\":\"Hi\"}\n", Look::Lines),
            ("{\"usage\":1}\r\n\r\n{\"delta\":\"Hi\"}", Look::Lines),
            ("{\"delta\":\"Hi\"}", Look::Object),
            ("{\"reply\":\"Hi\"}\n", Look::Object),
            ("{\n  \"delta\": \"Hi\"\n}\n", Look::Object),
            ("{\"delta\":7}\n", Look::Object),
            ("{}\n!", Look::Object),
            ("{", Look::Object),
            (" <p>Hi", Look::Markup),
            ("Hello", Look::Text),
            ("data: all of it is yours", Look::Text),
            ("data:", Look::Text),
            ("data:\n{", Look::Text),
            ("event: the concert\nis at eight", Look::Text),
            ("event: the concert", Look::Text),
            ("date: the ninth", Look::Text),
            ("da", Look::Text),
            ("[1]", Look::Text),
            (" \r\n", Look::Nothing),
            ("", Look::Nothing),
        ] {
            assert_eq!(look(body.as_bytes(), true), Some(expected), "{body:?}");
            // What is told before the end is never taken back.
            for end in 0..body.len() {
                let early = look(&body.as_bytes()[..end], false);
                assert!(early.is_none_or(|early| early == expected), "{body:?} to {end}: {early:?}");
            }
        }
    }

    #[test]
    fn what_is_clear_is_told_at_once() {
        for (begun, expected) in [
            ("H", Some(Look::Text)),
            ("dat", None),
            ("data", None),
            ("dates", Some(Look::Text)),
            ("data: H", Some(Look::Text)),
            ("data: {", Some(Look::Events)),
            ("{\"delta\":\"Hi\"}", None),
            ("{\"delta\":\"Hi\"}\n", Some(Look::Lines)),
            ("{\n", Some(Look::Object)),
            ("<", Some(Look::Markup)),
            ("", None),
            ("\u{feff}", None),
        ] {
            assert_eq!(look(begun.as_bytes(), false), expected, "{begun:?}");
        }
    }
}
