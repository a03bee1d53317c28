//! Tests: what a recogniser can do wrong, who is told to mend it, and what it costs.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Answers every connection with these bytes, and closes.
async fn answering(answer: &'static str) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    Fake { server, got: unbounded_channel().1, heads: unbounded_channel().1, done: unbounded_channel() }
}

/// What an utterance comes to at this recogniser.
async fn failure(fake: &Fake, stt: &Stt, change: impl FnOnce(&mut Streaming)) -> String {
    let (mut recogniser, mut inputs) = fake.start(stt, change);
    hear(&mut recogniser, &frames(0, 50));
    recogniser.finalize(1);
    let told = told(&mut inputs).await.replace(&fake.server, "IT");
    recogniser.finalize(2);
    told
}

#[tokio::test]
async fn a_refused_handshake_names_its_owner() {
    for (answer, why) in [
        (
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 33\r\n\r\n{\"err_msg\":\"Invalid key: hush.  \"}",
            "http_4xx: your config: api_key: GET ws://IT/v1/listen: answered 401 instead of 101: \
             {\"err_msg\":\"Invalid key: ***. \"}",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 14\r\n\r\nno such model.",
            "http_4xx: your config: GET ws://IT/v1/listen: answered 400 instead of 101: no such model.",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "http_4xx: your config: url: GET ws://IT/v1/listen: answered 404 instead of 101: (no body)",
        ),
        (
            "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n",
            "http_4xx: the vendor refused: GET ws://IT/v1/listen: answered 429 instead of 101: (no body)",
        ),
        (
            "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno",
            "http_5xx: the vendor failed: GET ws://IT/v1/listen: answered 503 instead of 101: no",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<h1>",
            "protocol: your config: url: GET ws://IT/v1/listen: answered 200 instead of 101: <h1>",
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "protocol: the vendor: GET ws://IT/v1/listen: no WebSocket handshake: ",
        ),
        ("", "connect: the network: GET ws://IT/v1/listen: the handshake broke off"),
    ] {
        let fake = answering(answer).await;
        let told = failure(&fake, &Stt::Deepgram(deepgram_stt(&fake.server)), |_| {}).await;
        assert!(told.starts_with(why) || answer.is_empty() && told.contains("andshake"), "{told}\n{why}");
        let exact = answer.contains("HTTP");
        assert!(!exact || told == why, "{told}");
    }
}

#[tokio::test]
async fn a_refusal_that_will_not_mend_is_told_at_once() {
    let fake = answering("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n").await;
    let stt = Stt::Deepgram(deepgram_stt(&fake.server));
    let since = Instant::now();
    let told = failure(&fake, &stt, |streaming| streaming.patience.while_down = PATIENCE).await;
    assert!(told.contains("401") && since.elapsed() < PATIENCE / 2, "{told}");
}

#[tokio::test]
async fn nobody_there() {
    let gone = nowhere();
    let fake = Fake { server: gone.clone(), ..answering("").await };
    let told = failure(&fake, &Stt::Deepgram(deepgram_stt(&gone)), |_| {}).await;
    let why = "connect: the vendor: GET ws://IT/v1/listen: connection refused: is it running?";
    assert_eq!(told, why);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls() {
    let fake = answering("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n").await;
    let mut stt = deepgram_stt(&fake.server);
    stt.endpoint.upstream.tls = true;
    let told = failure(&fake, &Stt::Deepgram(stt), |_| {}).await;
    let why = "connect: your config: url: GET wss://IT/v1/listen: what came is not TLS: does the server speak without it there?";
    assert_eq!(told, why);
}

#[tokio::test]
async fn a_handshake_that_hangs() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let mut stt = deepgram_stt(&server);
    stt.endpoint.upstream.first_byte_timeout = SOON;
    let fake = Fake { server, ..answering("").await };
    let told = failure(&fake, &Stt::Deepgram(stt), |_| {}).await;
    assert_eq!(told, "timeout: the vendor: GET ws://IT/v1/listen: no answer to the handshake within 80 ms");
    drop(listener);
}

#[tokio::test]
async fn a_recogniser_that_hears_and_says_nothing() {
    let mut fake = Fake::serving(|_, mut peer| async move { peer.until_closed().await }).await;
    let stt = Stt::Deepgram(deepgram_stt(&fake.server));
    let told = failure(&fake, &stt, |streaming| streaming.patience.answer = SOON).await;
    assert_eq!(told, "timeout: the vendor: GET ws://IT/v1/listen: no transcript within 80 ms");
    assert_eq!(fake.result().await, "timeout");
    // Without a question the first answer is waited for.
    let mut stt = deepgram_stt(&fake.server);
    stt.endpoint.upstream.first_byte_timeout = SOON;
    let (mut recogniser, _inputs) = fake.start(&Stt::Deepgram(stt), |_| {});
    hear(&mut recogniser, &frames(0, 50));
    while fake.result().await != "timeout" {}
}

#[tokio::test]
async fn garbage_and_close_codes_name_their_owner() {
    for (code, sent, why) in [
        (0, "<h1>Oops</h1>", "the vendor: GET ws://IT/v1/listen: sent what is no result: <h1>Oops</h1>"),
        (1008, "DATA-0000", "your config: GET ws://IT/v1/listen: closed with 1008 (DATA-0000)"),
        (1011, "NET-0000", "the vendor: GET ws://IT/v1/listen: closed with 1011 (NET-0000)"),
        (1000, "", "the vendor: GET ws://IT/v1/listen: closed with 1000"),
    ] {
        let fake = Fake::serving(move |_, mut peer| async move {
            peer.until_heard(640).await;
            if code == 0 {
                peer.send(sent).await;
                peer.until_closed().await;
            } else {
                peer.close(code, sent).await;
            }
        })
        .await;
        let told = failure(&fake, &Stt::Deepgram(deepgram_stt(&fake.server)), |_| {}).await;
        assert_eq!(told, format!("protocol: {why}"));
    }
}

#[tokio::test]
async fn a_question_waits_for_a_recogniser_that_comes_back_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    drop(listener);
    let fake = Fake { server: server.clone(), ..answering("").await };
    let patient = |streaming: &mut Streaming| streaming.patience.while_down = PATIENCE;
    let (mut recogniser, mut inputs) = fake.start(&Stt::Deepgram(deepgram_stt(&server)), patient);
    hear(&mut recogniser, &frames(0, 50));
    recogniser.finalize(1);
    // It has been tried in vain, and more than once.
    let mut done = fake.done.1;
    assert_eq!(timeout(PATIENCE, done.recv()).await.unwrap().unwrap().result, "connect");
    let listener = TcpListener::bind(&server).await.unwrap();
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut ws = tokio_tungstenite::accept_async(stream).await.unwrap();
    let mut heard = Vec::new();
    while let Some(Ok(message)) = ws.next().await {
        match message {
            Message::Binary(audio) => heard.extend_from_slice(&audio),
            _ => break,
        }
    }
    assert_eq!(heard, frames(0, 50));
    let text = r#"{"type":"Results","is_final":true,"from_finalize":true,"channel":{"alternatives":[{"transcript":"hi"}]}}"#;
    ws.send(Message::text(text)).await.unwrap();
    assert_eq!(told(&mut inputs).await, "partial: hi");
    assert_eq!(told(&mut inputs).await, "1: hi");
}

#[tokio::test]
async fn a_slow_reader_costs_the_oldest_audio_and_no_memory() {
    let fake = Fake::serving(|_, peer| async move {
        // Reads nothing, for as long as the test lasts.
        let _peer = peer;
        std::future::pending().await
    })
    .await;
    let (mut recogniser, inputs) = fake.deepgram();
    // An hour of audio, at once: more than any socket takes.
    let since = Instant::now();
    for _ in 0..3600 * 50 {
        recogniser.hear(&[0x55; 160]);
    }
    assert!(since.elapsed() < PATIENCE, "{:?}", since.elapsed());
    let (start, end) = recogniser.tape.span();
    assert_eq!((end - start) as usize, tape::MOST_KEPT);
    assert!(recogniser.lost() > 0);
    drop(inputs);
}

#[tokio::test]
async fn a_call_that_does_not_listen_loses_guesses_and_no_answer() {
    let (flooded, mut has_flooded) = unbounded_channel();
    let mut fake = Fake::serving(move |_, mut peer| {
        let flooded = flooded.clone();
        async move {
        for n in 0..500 {
            peer.send(format!(r#"{{"type":"Results","is_final":true,"speech_final":true,"channel":{{"alternatives":[{{"transcript":"{n}"}}]}}}}"#)).await;
        }
        let _ = flooded.send(());
        peer.until_closed().await;
    }})
    .await;
    let (mut recogniser, mut inputs) = fake.deepgram();
    timeout(PATIENCE, has_flooded.recv()).await.unwrap();
    hear(&mut recogniser, &frames(0, 100));
    // By the time that the audio is there, the flood has been read.
    assert!(matches!(fake.got().await, (0, Got::Audio(_))));
    recogniser.finalize(1);
    let mut told_of = 0;
    let last = loop {
        let said = told(&mut inputs).await;
        told_of += 1;
        if said.starts_with("1: ") {
            break said;
        }
    };
    assert!(last.ends_with("498 499") && told_of < 60, "{told_of}: {last}");
}

#[tokio::test]
async fn a_recogniser_that_is_dropped_lets_go_of_everything() {
    let mut fake = Fake::serving(|_, mut peer| async move {
        // Never says goodbye.
        peer.until_closed().await;
    })
    .await;
    let (recogniser, inputs) = fake.deepgram();
    timeout(PATIENCE, fake.heads.recv()).await.unwrap();
    let tape = Arc::downgrade(&recogniser.tape);
    drop(recogniser);
    while fake.got().await != (0, Got::Closed) {}
    assert!(matches!(fake.result().await, "ok" | "cancelled"));
    let mut inputs = inputs;
    assert!(timeout(PATIENCE, inputs.recv()).await.unwrap().is_none(), "the task has ended");
    assert!(tape.upgrade().is_none());
}

// ---- with another that stands in ------------------------------------------------------------------

/// A recogniser that hears until it is asked, and then knows what was said.
async fn who_knows(text: &'static str) -> Fake {
    Fake::serving(move |_, mut peer| async move {
        loop {
            match peer.next().await {
                Got::Text(asked) if asked == deepgram::FINALIZE => {
                    peer.send(results(text, 0, 1000, ANSWER)).await;
                }
                Got::Closed => return,
                Got::Audio(_) | Got::Text(_) => {}
            }
        }
    })
    .await
}

#[tokio::test]
async fn another_recogniser_hears_what_the_first_did_not() {
    let refuses = nowhere();
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let breaks = Fake::serving(|_, mut peer| async move { peer.until_heard(640).await }).await;
    let is_mute = Fake::serving(|_, mut peer| async move { peer.until_closed().await }).await;
    let hung = hangs.local_addr().unwrap().to_string();
    for server in [&refuses, &hung, &breaks.server, &is_mute.server] {
        let mut second = who_knows("book a table").await;
        let stts = [server, &second.server].map(|server| Stt::Deepgram(deepgram_stt(server)));
        let patient = |streaming: &mut Streaming| streaming.patience.while_down = PATIENCE;
        let (mut recogniser, mut inputs) = second.start_all(&[&stts[0], &stts[1]], 5 * SOON, patient);
        let audio = frames(1, 50);
        hear(&mut recogniser, &audio);
        recogniser.finalize(1);
        assert_eq!(told(&mut inputs).await, "partial: book a table", "{server}");
        assert_eq!(told(&mut inputs).await, "1: book a table", "{server}");
        assert_eq!(second.audio_until(0, deepgram::FINALIZE).await, audio, "{server}");
    }
}

#[tokio::test]
async fn a_question_is_put_to_each_of_them_once() {
    let first = Fake::serving(|_, mut peer| async move { peer.until_closed().await }).await;
    let second = Fake::serving(|_, mut peer| async move { peer.until_closed().await }).await;
    let stts = [&first.server, &second.server].map(|server| Stt::Deepgram(deepgram_stt(server)));
    let quick = |streaming: &mut Streaming| streaming.patience.answer = SOON;
    let (mut recogniser, mut inputs) = second.start_all(&[&stts[0], &stts[1]], PATIENCE, quick);
    hear(&mut recogniser, &frames(0, 50));
    recogniser.finalize(1);
    let told = told(&mut inputs).await;
    let why =
        format!("timeout: the vendor: GET ws://{}/v1/listen: no transcript within 80 ms", second.server);
    assert_eq!(told, why, "the last one's failure");
}

#[tokio::test]
async fn a_breaker_that_is_open_fails_a_question_at_once() {
    let gone = nowhere();
    let fake = Fake { server: gone.clone(), ..answering("").await };
    let mut stt = deepgram_stt(&gone);
    stt.endpoint.upstream.breaker.failures = std::num::NonZeroU32::new(1);
    let since = Instant::now();
    let told =
        failure(&fake, &Stt::Deepgram(stt), |streaming| streaming.patience.while_down = PATIENCE).await;
    assert!(told.starts_with("breaker_open: IT was not asked: its breaker opened 0 s ago"), "{told}");
    assert!(told.ends_with("GET ws://IT/v1/listen: connection refused: is it running?"), "{told}");
    assert!(since.elapsed() < PATIENCE / 2);
}
