//! What the carrier (or a bot) sends on the WebSocket, and the forms that it posts.

use voxgate::twilio::{Message, Outbound, Reader, Start, StreamStatus, VoiceRequest};

/// A text of the WebSocket is read twice by the same reader: the space that it keeps changes nothing.
/// What it says can be said again and is then read as the same. Forms have bounded fields.
pub fn run(data: &[u8]) {
    let status = StreamStatus::read(data);
    assert!(status.code().is_none_or(|code| (31_900..32_000).contains(&code)), "{status:?}");
    let VoiceRequest { call_sid, from, to, call_status, resumed: _ } = VoiceRequest::read(data);
    for field in [call_sid, from, to, call_status, status.call_sid, status.event, status.error] {
        assert!(field.chars().count() <= 300 && !field.contains(char::is_control), "{field:?}");
    }

    let Ok(text) = std::str::from_utf8(data) else { return };
    let (mut carriers, mut bots) = (Reader::default(), Reader::of_any_track());
    let once = format!("{:?}", carriers.read(text));
    assert_eq!(once, format!("{:?}", carriers.read(text)), "read again");
    let by_bot = format!("{:?}", bots.read(text));
    match carriers.read(text) {
        // Another track, or one whose payload nobody has looked at.
        Ok(Message::OtherTrack) => assert_ne!(by_bot, once),
        Ok(Message::Media { payload, .. }) => {
            assert!(payload.len() <= text.len() * 3 / 4, "more audio than there was text");
            assert_eq!(by_bot, once);
        }
        Ok(Message::Dtmf { digit }) => assert!("0123456789*#ABCD".contains(digit), "{digit}"),
        Ok(Message::Mark { name }) => said_again(&name),
        Ok(Message::Start(start)) => started(&start),
        Ok(Message::Unknown { event }) => assert!(!event.is_empty()),
        Ok(Message::Connected | Message::Stop | Message::Clear) => {}
        Err(malformed) => assert!(!malformed.to_string().is_empty()),
    }
}

/// A mark comes back by the name that we give it, whatever that is.
fn said_again(name: &str) {
    let sent = Outbound::new(name).mark(name);
    let sent = std::str::from_utf8(&sent).expect("JSON is text");
    assert_eq!(Reader::default().read(sent), Ok(Message::Mark { name: name.into() }));
}

fn started(start: &Start) {
    assert!(!start.stream_sid.is_empty() && !start.known_as().is_empty());
    let clear = Outbound::new(&start.stream_sid).clear();
    let clear = std::str::from_utf8(&clear).expect("JSON is text");
    assert_eq!(Reader::default().read(clear), Ok(Message::Clear));
    if let Some(format) = &start.format {
        assert!(!format.is_mulaw_8k_mono() || matches!(format.sample_rate, 0 | 8_000), "{format}");
    }
}
