//! Tests: Deepgram's wire, message by message.

use super::*;

const FINAL: &str = r#""is_final":true,"#;
const END: &str = r#""is_final":true,"speech_final":true,"#;

#[tokio::test]
async fn a_handshake_says_what_comes_and_who_asks() {
    let mut fake = Fake::serving(|_, mut peer| async move { peer.until_closed().await }).await;
    let _recogniser = fake.deepgram();
    let head = timeout(PATIENCE, fake.heads.recv()).await.unwrap().unwrap();
    let query = "/v1/listen?model=nova-3&language=en&encoding=mulaw&sample_rate=8000&channels=1\
        &interim_results=true&endpointing=300&utterance_end_ms=1000&smart_format=false&punctuate=true\
        &keyterm=Acme+%26+Co&tag=a";
    assert_eq!(head.lines().next(), Some(query));
    for header in ["authorization: Token hush", "x-team: blue", "user-agent: voxgate/0.1.0"] {
        assert!(head.lines().any(|line| line == header), "{head}");
    }
}

#[tokio::test]
async fn who_asks_is_for_the_operator_to_say() {
    let mut fake = Fake::serving(|_, mut peer| async move { peer.until_closed().await }).await;
    let mut stt = deepgram_stt(&fake.server);
    stt.endpoint.headers.push(("authorization".to_owned(), Secret("Bearer own".to_owned())));
    let _recogniser = fake.start(&Stt::Deepgram(stt), |_| {});
    let head = timeout(PATIENCE, fake.heads.recv()).await.unwrap().unwrap();
    let said: Vec<&str> = head.lines().filter(|line| line.starts_with("authorization")).collect();
    assert_eq!(said, ["authorization: Bearer own"]);
}

#[tokio::test]
async fn a_question_comes_behind_the_audio_and_its_answer_has_all_words() {
    let mut fake = Fake::serving(|_, mut peer| async move {
        peer.until_heard(1280).await;
        peer.send(results("book", 0, 100, "")).await;
        peer.send(results("book", 0, 120, "")).await;
        peer.send(r#"{"type":"Metadata"}"#).await;
        peer.send(results("Book a table", 0, 120, FINAL)).await;
        peer.until(deepgram::FINALIZE).await;
        peer.send(results("for two.", 120, 500, ANSWER)).await;
        peer.until(deepgram::CLOSE).await;
    })
    .await;
    let (mut recogniser, mut inputs) = fake.deepgram();
    let audio = frames(0, 25);
    hear(&mut recogniser, &audio);
    assert_eq!(told(&mut inputs).await, "partial: book");
    assert_eq!(told(&mut inputs).await, "partial: Book a table");
    recogniser.finalize(7);
    // Behind the question: for the next utterance.
    hear(&mut recogniser, &frames(100, 10));
    assert_eq!(told(&mut inputs).await, "partial: Book a table for two.");
    assert_eq!(told(&mut inputs).await, "7: Book a table for two.");
    assert_eq!(fake.audio_until(0, deepgram::FINALIZE).await, audio);
    assert_eq!(fake.got().await, (0, Got::Audio(frames(100, 10))), "in one message");
    drop(recogniser);
    assert_eq!(fake.got().await, (0, Got::Text(deepgram::CLOSE.to_owned())));
    assert_eq!(fake.result().await, "ok");
}

#[tokio::test]
async fn messages_are_of_80_ms_or_a_little_more() {
    let mut fake = Fake::serving(|_, mut peer| async move { peer.until_closed().await }).await;
    let (mut recogniser, _inputs) = fake.deepgram();
    for frame in frames(0, 100).chunks(160) {
        recogniser.hear(frame);
        tokio::task::yield_now().await;
    }
    let mut heard = 0;
    while heard < 16_000 {
        let (0, Got::Audio(audio)) = fake.got().await else { panic!("audio") };
        assert!((640..=1920).contains(&audio.len()), "{} bytes", audio.len());
        heard += audio.len();
    }
}

#[tokio::test]
async fn an_end_that_the_recogniser_knows_is_answered_without_asking_again() {
    let mut fake = Fake::serving(|_, mut peer| async move {
        peer.until_heard(1280).await;
        peer.send(results("stop", 0, 80, END)).await;
        peer.send(r#"{"type":"UtteranceEnd","channel":[0,1],"last_word_end":0.07}"#).await;
        peer.until_heard(3200).await;
        peer.send(results("now", 80, 160, FINAL)).await;
        peer.send(r#"{"type":"UtteranceEnd","channel":[0,1],"last_word_end":0.15}"#).await;
        peer.until(deepgram::CLOSE).await;
    })
    .await;
    let (mut recogniser, mut inputs) = fake.deepgram();
    for (utterance, word) in [(1, "stop"), (2, "now")] {
        // Much of it is not covered by any result when the question comes.
        hear(&mut recogniser, &frames(0, 20));
        assert_eq!(told(&mut inputs).await, format!("partial: {word}"));
        assert_eq!(told(&mut inputs).await, "end of speech");
        recogniser.finalize(utterance);
        assert_eq!(told(&mut inputs).await, format!("{utterance}: {word}"));
    }
    drop(recogniser);
    fake.audio_until(0, deepgram::CLOSE).await;
}

#[tokio::test]
async fn what_is_forgotten_is_not_said_later() {
    let mut fake = Fake::serving(|_, mut peer| async move {
        peer.until(deepgram::FINALIZE).await;
        peer.send(results("ahem", 0, 200, ANSWER)).await;
        peer.until(deepgram::FINALIZE).await;
        peer.send(results("yes", 200, 400, ANSWER)).await;
        peer.until_closed().await;
    })
    .await;
    let (mut recogniser, mut inputs) = fake.deepgram();
    hear(&mut recogniser, &frames(0, 10));
    assert!(matches!(fake.got().await, (0, Got::Audio(_))));
    recogniser.forget();
    hear(&mut recogniser, &frames(0, 10));
    recogniser.finalize(3);
    assert_eq!(told(&mut inputs).await, "partial: yes");
    assert_eq!(told(&mut inputs).await, "3: yes");
}

#[tokio::test]
async fn a_connection_without_audio_is_kept() {
    let mut fake = Fake::serving(|_, mut peer| async move { peer.until_closed().await }).await;
    let stt = Stt::Deepgram(deepgram_stt(&fake.server));
    let (_recogniser, _inputs) = fake.start(&stt, |streaming| streaming.patience.keep_alive = SOON);
    for _ in 0..2 {
        assert_eq!(fake.got().await, (0, Got::Text(deepgram::KEEP_ALIVE.to_owned())));
    }
}

#[tokio::test]
async fn nothing_said_is_an_empty_transcript_even_if_nobody_says_so() {
    let fake = Fake::serving(|_, mut peer| async move {
        peer.until(deepgram::FINALIZE).await;
        peer.send(r#"{"type":"SpeechStarted"}"#).await;
        // The answer comes too late to count, and must not be taken for the next utterance's.
        peer.until_heard(1).await;
        peer.send(results("late", 0, 200, ANSWER)).await;
        peer.until(deepgram::FINALIZE).await;
        peer.send(results("yes", 200, 400, ANSWER)).await;
        peer.until_closed().await;
    })
    .await;
    let stt = Stt::Deepgram(deepgram_stt(&fake.server));
    let (mut recogniser, mut inputs) = fake.start(&stt, |streaming| streaming.patience.answer = SOON);
    hear(&mut recogniser, &frames(0, 10));
    recogniser.finalize(1);
    assert_eq!(told(&mut inputs).await, "1: ");
    hear(&mut recogniser, &frames(10, 10));
    recogniser.finalize(2);
    assert_eq!(told(&mut inputs).await, "partial: yes");
    assert_eq!(told(&mut inputs).await, "2: yes");
}

#[tokio::test]
async fn a_connection_that_breaks_in_mid_utterance_costs_no_audio_and_no_word() {
    for how in ["reset", "close", "error"] {
        let mut fake = Fake::serving(move |connection, mut peer| async move {
            if connection == 0 {
                peer.until_heard(9600).await;
                peer.send(results("one two", 0, 400, FINAL)).await;
                peer.send(results("thr", 400, 1200, "")).await;
                peer.until_heard(640).await;
                match how {
                    "reset" => peer.ws.get_ref().set_zero_linger().unwrap(),
                    "close" => peer.close(1011, "NET-0000").await,
                    _ => peer.send(r#"{"type":"Error","description":"oops"}"#).await,
                }
                return;
            }
            peer.until(deepgram::FINALIZE).await;
            // The new connection counts from where the old one was done.
            peer.send(results("three four", 0, 1600, ANSWER)).await;
            peer.until_closed().await;
        })
        .await;
        let (mut recogniser, mut inputs) = fake.deepgram();
        let audio = frames(0, 60);
        hear(&mut recogniser, &audio);
        assert_eq!(told(&mut inputs).await, "partial: one two");
        assert_eq!(told(&mut inputs).await, "partial: one two thr");
        hear(&mut recogniser, &frames(60, 40));
        assert_eq!(fake.result().await, "protocol", "{how}");
        recogniser.finalize(1);
        assert_eq!(told(&mut inputs).await, "partial: one two three four");
        assert_eq!(told(&mut inputs).await, "1: one two three four");
        let again = loop {
            if let (1, Got::Audio(first)) = fake.got().await {
                break [first, fake.audio_until(1, deepgram::FINALIZE).await].concat();
            }
        };
        assert_eq!(again, frames(20, 80), "{how}: all from behind the last final result");
        assert_eq!(recogniser.lost(), 0);
    }
}
