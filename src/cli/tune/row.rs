//! One row of the picture: a stretch of time, its lanes below each other, notes on top.

use std::fmt::Write as _;

use super::picture::{Kind, Lane, Picture, Series};
use super::svg::{LEFT, RIGHT, WIDTH, escaped};

/// Notes stand in so many lines, where they do not fit beside each other.
const NOTE_LINES: usize = 3;
const NOTE: f64 = 13.0;
const GAP: f64 = 6.0;
/// About how wide a letter of a note is.
const LETTER: f64 = 5.7;
/// Points further apart than this are no line.
const JOIN_S: f64 = 0.05;

/// Nothing is louder.
const FULL_SCALE_DB: f64 = 90.3;

pub(super) struct Scale {
    pub(super) per_s: f64,
    pub(super) row_s: f64,
}

impl Lane {
    fn height(self) -> f64 {
        match self {
            Lane::Caller => 110.0,
            Lane::Probability => 60.0,
            Lane::Speech | Lane::Hold => 10.0,
            Lane::Pause => 46.0,
            Lane::Bot => 60.0,
            Lane::State => 16.0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Lane::Caller => "caller, RMS",
            Lane::Probability => "probability",
            Lane::Speech => "speech",
            Lane::Pause => "pause, s",
            Lane::Hold => "hold",
            Lane::Bot => "bot, RMS",
            Lane::State => "state",
        }
    }

    /// Values with a line and a number; levels are named by their RMS, as `vad_rms` is.
    fn ticks(self) -> &'static [(f32, &'static str)] {
        match self {
            Lane::Caller => &[(20.0, "10"), (40.0, "100"), (60.0, "1,000"), (80.0, "10,000")],
            Lane::Probability => &[(0.0, "0"), (0.5, "0.5"), (1.0, "1")],
            Lane::Bot => &[(40.0, "100"), (80.0, "10,000")],
            Lane::Pause => &[(0.0, "0"), (0.5, "0.5"), (1.0, "1")],
            Lane::Speech | Lane::Hold | Lane::State => &[],
        }
    }

    /// How high a value stands, 0 to 1.
    fn share(self, value: f32) -> f64 {
        let most = match self {
            Lane::Caller | Lane::Bot => FULL_SCALE_DB,
            Lane::Pause => 1.4,
            Lane::Probability | Lane::Speech | Lane::Hold | Lane::State => 1.0,
        };
        (f64::from(value) / most).clamp(0.0, 1.0)
    }
}

/// The lanes that something is in, from top to bottom.
pub(super) fn lanes(picture: &Picture) -> Vec<Lane> {
    let all = picture.series.iter().map(|s| s.lane).chain(picture.spans.iter().map(|s| s.lane));
    let mut lanes: Vec<Lane> = all.collect();
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}

/// Draws the row that begins at `from` seconds, and says where it ends on the page.
pub(super) fn draw(
    picture: &Picture,
    lanes: &[Lane],
    scale: &Scale,
    from: f64,
    top: f64,
    body: &mut String,
) -> f64 {
    let to = from + scale.row_s;
    let x = |at: f64| LEFT + (at.clamp(from, to) - from) * scale.per_s;
    let right = WIDTH - RIGHT;
    let notes_end = top + NOTE * NOTE_LINES as f64;
    let mut y = notes_end + GAP;
    for lane in lanes {
        let (height, bottom) = (lane.height(), y + lane.height());
        let _ = writeln!(
            body,
            r#"<text class="lane" x="8" y="{:.1}">{}</text>"#,
            y + height.min(10.0),
            lane.name()
        );
        for (value, name) in lane.ticks() {
            let at = bottom - lane.share(*value) * height;
            let _ =
                writeln!(body, r#"<line class="grid" x1="{LEFT}" y1="{at:.1}" x2="{right}" y2="{at:.1}"/>"#);
            let _ = writeln!(
                body,
                r#"<text class="tick" x="{}" y="{:.1}" text-anchor="end">{name}</text>"#,
                LEFT - 5.0,
                at + 3.5
            );
        }
        for span in picture.spans.iter().filter(|s| s.lane == *lane && s.to > from && s.from < to) {
            let (left, width) = (x(span.from), x(span.to) - x(span.from));
            let _ = writeln!(
                body,
                r#"<rect x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{height}" fill="{}"><title>{} {:.3} s to {:.3} s</title></rect>"#,
                span.colour,
                escaped(span.name),
                span.from,
                span.to
            );
            if *lane == Lane::State && width > LETTER * 1.4 * span.name.len() as f64 {
                let _ = writeln!(
                    body,
                    r#"<text class="tick" x="{:.1}" y="{:.1}">{}</text>"#,
                    left + 4.0,
                    bottom - 4.5,
                    escaped(span.name)
                );
            }
        }
        for series in picture.series.iter().filter(|s| s.lane == *lane) {
            line(series, from, to, &x, &|value| bottom - lane.share(value) * height, bottom, body);
        }
        y = bottom + GAP;
    }
    for second in (from.ceil() as u64)..=(to.floor() as u64) {
        let at = x(second as f64);
        let _ = writeln!(
            body,
            r##"<line x1="{at:.1}" y1="{:.1}" x2="{at:.1}" y2="{:.1}" stroke="#adb5bd"/>"##,
            y - 2.0,
            y + 3.0
        );
        if scale.row_s <= 10.0 || second % 2 == 0 {
            let _ = writeln!(
                body,
                r#"<text class="tick" x="{at:.1}" y="{:.1}" text-anchor="middle">{second} s</text>"#,
                y + 14.0
            );
        }
    }
    notes(picture, from, to, &x, (top, notes_end, y - GAP), body);
    y + 18.0
}

/// A series within the row.
fn line(
    series: &Series,
    from: f64,
    to: f64,
    x: &dyn Fn(f64) -> f64,
    y: &dyn Fn(f32) -> f64,
    bottom: f64,
    body: &mut String,
) {
    let stepped = series.kind == Kind::Area;
    // What always holds is a line from one point to the next, however far that is.
    let joined = series.kind == Kind::Dashes;
    let mut path = String::new();
    let mut last: Option<f64> = None;
    for (n, (at, value)) in series.points.iter().enumerate() {
        let next = series.points.get(n + 1).map_or(at + 0.02, |(next, _)| *next);
        let end = if joined { next } else { next.min(at + 0.02) };
        if end <= from || *at >= to {
            continue;
        }
        let fresh = last.is_none_or(|last| !joined && at - last > JOIN_S);
        if fresh {
            if let (true, Some(last)) = (stepped, last) {
                let _ = write!(path, "L{:.1} {bottom:.1}Z", x(last));
            }
            let start = if stepped { bottom } else { y(*value) };
            let _ = write!(path, "M{:.1} {start:.1}", x(*at));
        }
        let _ = write!(path, "L{:.1} {:.1}", x(*at), y(*value));
        if stepped || joined {
            let _ = write!(path, "L{:.1} {:.1}", x(end), y(*value));
        }
        last = Some(end);
    }
    let Some(last) = last else { return };
    let colour = series.colour;
    let _ = match series.kind {
        Kind::Area => writeln!(
            body,
            r#"<path d="{path}L{:.1} {bottom:.1}Z" fill="{colour}" fill-opacity="0.75"/>"#,
            x(last)
        ),
        Kind::Line => {
            writeln!(body, r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>"#)
        }
        Kind::Dashes => writeln!(
            body,
            r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.3" stroke-dasharray="5 3"/>"#
        ),
    };
}

/// The marks of the row: a line through all lanes, and a note on top where there is room.
fn notes(
    picture: &Picture,
    from: f64,
    to: f64,
    x: &dyn Fn(f64) -> f64,
    (top, notes_end, bottom): (f64, f64, f64),
    body: &mut String,
) {
    let mut taken = [f64::MIN; NOTE_LINES];
    for mark in picture.marks.iter().filter(|mark| (from..to).contains(&mark.at)) {
        let (at, colour, text) = (x(mark.at), mark.colour, escaped(&mark.text));
        let width = mark.text.chars().count() as f64 * LETTER + 8.0;
        // A note at the right edge stands left of its line.
        let left = at + width > WIDTH;
        let start = if left { at - width } else { at };
        let free = taken.iter().position(|until| *until <= start);
        let head = free.map_or(notes_end, |n| top + NOTE * (n + 1) as f64 - 3.0);
        let _ = writeln!(
            body,
            r#"<line x1="{at:.1}" y1="{head:.1}" x2="{at:.1}" y2="{bottom:.1}" stroke="{colour}" stroke-width="1.2"><title>{:.3} s: {text}</title></line>"#,
            mark.at
        );
        if let Some(n) = free {
            taken[n] = start + width;
            let (anchor, at) = if left { ("end", at - 3.0) } else { ("start", at + 3.0) };
            let _ = writeln!(
                body,
                r#"<text class="note" x="{at:.1}" y="{head:.1}" text-anchor="{anchor}" style="fill:{colour}">{text}</text>"#
            );
        }
    }
}
