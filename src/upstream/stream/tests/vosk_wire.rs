//! Tests: the Vosk server's wire, where each message of audio has one answer.

use super::*;
use crate::audio::mulaw;

const EOF: &str = r#"{"eof" : 1}"#;

fn pcm(audio: &[u8]) -> Vec<u8> {
    audio.iter().flat_map(|byte| mulaw::decode(*byte).to_le_bytes()).collect()
}

#[tokio::test]
async fn an_utterance_ends_a_connection_and_the_next_goes_on_where_it_ended() {
    let mut fake = Fake::serving(|connection, mut peer| async move {
        let mut answered = 0;
        loop {
            match peer.next().await {
                Got::Audio(_) => {
                    answered += 1;
                    let text = if (connection, answered) == (0, 2) {
                        r#"{"text" : "book"}"#
                    } else {
                        r#"{"partial" : ""}"#
                    };
                    peer.send(text).await;
                }
                Got::Text(text) if text == EOF => {
                    peer.send(format!(r#"{{"text" : "table {connection}"}}"#)).await;
                    peer.until_closed().await;
                    return;
                }
                Got::Text(_) => {}
                Got::Closed => return,
            }
        }
    })
    .await;
    let (mut recogniser, mut inputs) = fake.vosk();
    let first = frames(0, 8);
    hear(&mut recogniser, &first[..640]);
    assert_eq!(
        fake.got().await,
        (0, Got::Text(r#"{"config":{"phrase_list":["yes"],"sample_rate":8000}}"#.to_owned()))
    );
    assert_eq!(fake.got().await, (0, Got::Audio(pcm(&first[..640]))));
    hear(&mut recogniser, &first[640..]);
    assert_eq!(told(&mut inputs).await, "partial: book");
    assert_eq!(told(&mut inputs).await, "end of speech");
    // The caller goes on, and finishes later.
    hear(&mut recogniser, &frames(8, 20));
    recogniser.finalize(1);
    hear(&mut recogniser, &frames(50, 5));
    assert_eq!(told(&mut inputs).await, "partial: book table 0");
    assert_eq!(told(&mut inputs).await, "1: book table 0");
    let all = fake.audio_until(0, EOF).await;
    assert_eq!(all, pcm(&frames(4, 24)), "no more and no less");
    hear(&mut recogniser, &frames(55, 5));
    recogniser.finalize(2);
    assert_eq!(told(&mut inputs).await, "partial: table 1");
    assert_eq!(told(&mut inputs).await, "2: table 1");
    let config = r#"{"config":{"phrase_list":["yes"],"sample_rate":8000}}"#;
    assert!(fake.audio_until(1, config).await.is_empty());
    assert_eq!(fake.audio_until(1, EOF).await, pcm(&frames(50, 10)));
    assert_eq!((fake.result().await, fake.result().await), ("ok", "ok"));
}

#[tokio::test]
async fn a_server_that_dies_in_mid_utterance_is_told_everything_again() {
    let mut fake = Fake::serving(|connection, mut peer| async move {
        if connection == 0 {
            peer.until_heard(4 * 640).await;
            peer.send(r#"{"partial" : "he"}"#).await;
            peer.ws.get_ref().set_zero_linger().unwrap();
            return;
        }
        peer.until(EOF).await;
        peer.send(r#"{"text" : "hello"}"#).await;
        peer.until_closed().await;
    })
    .await;
    let (mut recogniser, mut inputs) = fake.vosk();
    hear(&mut recogniser, &frames(0, 20));
    assert_eq!(told(&mut inputs).await, "partial: he");
    assert_eq!(fake.result().await, "protocol");
    recogniser.finalize(1);
    while !matches!(fake.got().await, (1, Got::Text(_))) {}
    assert_eq!(fake.audio_until(1, EOF).await, pcm(&frames(0, 20)));
}

#[tokio::test]
async fn an_answer_that_does_not_come_leaves_the_guess() {
    let mut fake = Fake::serving(|connection, mut peer| async move {
        peer.until_heard(1280).await;
        peer.send(r#"{"partial" : "hello"}"#).await;
        peer.until_closed().await;
        assert!(connection < 2);
    })
    .await;
    let endpoint = endpoint(&fake.server, "/");
    let stt = Stt::Vosk(VoskStt { endpoint, phrase_list: Vec::new() });
    let (mut recogniser, mut inputs) = fake.start(&stt, |streaming| streaming.patience.answer = SOON);
    hear(&mut recogniser, &frames(0, 8));
    assert_eq!(told(&mut inputs).await, "partial: hello");
    recogniser.finalize(1);
    assert_eq!(told(&mut inputs).await, "1: hello");
    assert_eq!(fake.result().await, "timeout");
    hear(&mut recogniser, &frames(30, 8));
    while !matches!(fake.got().await, (1, Got::Text(_))) {}
    assert_eq!(fake.got().await, (1, Got::Audio(pcm(&frames(30, 8)))), "and is not heard again");
}
