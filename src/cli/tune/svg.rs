//! The page: title, legend, and the call in rows of at most 20 seconds, so that it can be read without
//! scrolling sideways.

use std::fmt::Write as _;

use super::picture::{Kind, Picture};
use super::row::{self, Scale};

pub(super) const WIDTH: f64 = 1400.0;
/// Left of the rows, for the names of lanes, and right of them.
pub(super) const LEFT: f64 = 124.0;
pub(super) const RIGHT: f64 = 16.0;
const ROW_S: f64 = 20.0;
/// More than this is not drawn: a picture of hours helps nobody.
const MOST_S: f64 = 3_600.0;
const LINE: f64 = 18.0;

const STYLE: &str = "\
text { font: 11px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #343a40 } \
.title { font-size: 14px; font-weight: 600 } .sub { font-size: 12px; fill: #495057 } \
.lane, .tick { fill: #868e96; font-size: 10px } .grid { stroke: #dee2e6; stroke-width: 1 } \
.note { font-size: 10.5px; paint-order: stroke; stroke: #fff; stroke-width: 3px }";

/// Text in XML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Writing to a `String` does not fail.
pub(super) fn page(title: &[String], picture: &Picture) -> String {
    let seconds = picture.seconds.clamp(1.0, MOST_S);
    let row_s = seconds.ceil().min(ROW_S);
    let rows = (seconds / row_s).ceil().max(1.0) as usize;
    let scale = Scale { per_s: (WIDTH - LEFT - RIGHT) / row_s, row_s };
    let lanes = row::lanes(picture);
    let mut body = String::new();
    let mut y = 10.0;
    for (n, line) in title.iter().enumerate() {
        y += LINE;
        let class = if n == 0 { "title" } else { "sub" };
        let _ = writeln!(body, r#"<text class="{class}" x="16" y="{y}">{}</text>"#, escaped(line));
    }
    y = legend(picture, y + LINE * 1.3, &mut body);
    for n in 0..rows {
        y = row::draw(picture, &lanes, &scale, n as f64 * row_s, y + 14.0, &mut body);
    }
    if picture.seconds > MOST_S {
        y += LINE;
        let _ =
            writeln!(body, r#"<text class="sub" x="16" y="{y}">The rest of the call is not drawn.</text>"#);
    }
    let height = y + 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n",
        escaped(title.first().map_or("", String::as_str))
    )
}

/// What each colour means, as far as it is in the picture.
fn legend(picture: &Picture, y: f64, body: &mut String) -> f64 {
    let mut entries: Vec<(&str, &str, Option<Kind>)> = Vec::new();
    let mut add = |entry: (&'static str, &'static str, Option<Kind>)| {
        if !entries.iter().any(|(name, ..)| *name == entry.0) {
            entries.push(entry);
        }
    };
    for series in &picture.series {
        add((series.name, series.colour, Some(series.kind)));
    }
    picture.spans.iter().for_each(|span| add((span.name, span.colour, Some(Kind::Area))));
    picture.marks.iter().for_each(|mark| add((mark.name, mark.colour, None)));
    let (mut x, mut y) = (16.0, y);
    for (name, colour, shape) in entries {
        let width = 34.0 + 6.6 * name.chars().count() as f64;
        if x + width > WIDTH - RIGHT {
            (x, y) = (16.0, y + LINE);
        }
        let (mid, top) = (y - 4.0, y - 10.0);
        let dashes = if shape == Some(Kind::Dashes) { "5 3" } else { "none" };
        let _ = match shape {
            Some(Kind::Area) => {
                writeln!(body, r#"<rect x="{x}" y="{top}" width="16" height="12" fill="{colour}"/>"#)
            }
            Some(Kind::Line | Kind::Dashes) => writeln!(
                body,
                r#"<path d="M{x} {mid}h16" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>"#
            ),
            None => writeln!(body, r#"<path d="M{} {top}l4 4v8h-8v-8z" fill="{colour}"/>"#, x + 8.0),
        };
        let _ = writeln!(body, r#"<text x="{}" y="{y}">{}</text>"#, x + 21.0, escaped(name));
        x += width;
    }
    y
}

#[cfg(test)]
mod tests {
    use super::super::picture::{Lane, Mark, Series};
    use super::*;

    #[test]
    fn what_a_probe_names_is_drawn_and_explained() {
        let series = |name, lane, kind| Series {
            name,
            lane,
            kind,
            colour: "#123456",
            points: vec![(0.0, 0.5), (1.0, 0.9)],
        };
        let mut picture = Picture {
            seconds: 45.0,
            series: vec![
                series("level", Lane::Caller, Kind::Area),
                series("a<b", Lane::Probability, Kind::Line),
            ],
            ..Picture::default()
        };
        picture.marks.push(Mark {
            name: "HOLD",
            colour: "#654321",
            at: 30.0,
            text: "held & \"kept\"".into(),
        });
        let page = page(&["a title".to_owned()], &picture);
        for part in ["a&lt;b", "held &amp; &quot;kept&quot;", "HOLD", "probability", ">40 s<", "a title"] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert!(!page.contains(">bot<"), "a lane with nothing in it");
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}
