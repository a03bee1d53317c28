//! What an agent answers: text, JSON, a stream of pieces.

use std::cell::RefCell;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use voxgate::call::FailureKind;
use voxgate::upstream::{Canned, Replied};

#[derive(Arbitrary, Debug)]
struct Told {
    who: u8,
    content_type: u8,
    /// Lengths of the pieces in which it comes, again and again.
    pieces: [u8; 3],
}

const TYPES: [&str; 8] = [
    "text/event-stream",
    "application/x-ndjson",
    "application/json",
    "text/plain; charset=utf-8",
    "text/html",
    "",
    "audio/wav",
    "Application/JSON;charset=utf-8",
];

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
    );
}

/// However an answer is cut into pieces, the same words are spoken, and it ends the same. No piece is
/// empty; all that is spoken was there; and of what fails it is said why, in a short line.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(told) = Told::arbitrary(&mut input) else { return };
    let body = input.take_rest();
    let who = [Canned::Webhook, Canned::Function, Canned::Chat][usize::from(told.who % 3)];
    let content_type = TYPES[usize::from(told.content_type) % TYPES.len()];
    let whole = read(who, content_type, vec![Bytes::copy_from_slice(body)]);
    let said = whole.pieces.concat();
    // An invalid byte becomes a character of three.
    assert!(said.len() <= 3 * body.len(), "{said:?}");
    assert!(whole.pieces.iter().all(|piece| !piece.is_empty()));
    match &whole.end {
        Ok(actions) => assert!(actions.len() <= 8),
        Err(failure) => {
            assert_eq!(failure.kind, FailureKind::Protocol, "{failure:?}");
            assert!(failure.why.chars().count() < 1_000, "{failure:?}");
            assert!(!failure.why.contains(char::is_control), "{failure:?}");
        }
    }

    let cut = read(who, content_type, cut(body, told.pieces));
    assert_eq!(cut.pieces.concat(), said, "{told:?}");
    assert_eq!(cut.end, whole.end, "{told:?}");
}

fn read(who: Canned, content_type: &str, pieces: Vec<Bytes>) -> Replied {
    RUNTIME.with_borrow(|runtime| runtime.block_on(who.read(content_type, pieces))).expect("a reply")
}

fn cut(bytes: &[u8], lengths: [u8; 3]) -> Vec<Bytes> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for length in lengths.into_iter().cycle() {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(length) + 1));
        if piece.is_empty() {
            break;
        }
        pieces.push(Bytes::copy_from_slice(piece));
        rest = behind;
    }
    pieces
}
