//! Services that are well, and answer at once: speech-to-text, agent and text-to-speech over HTTP, a recogniser that
//! speaks Vosk's WebSocket protocol, and an app that speaks ConversationRelay's.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// Serves all three over HTTP, by their paths; the port.
pub async fn http(voice: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, voice.clone()));
        }
    });
    port
}

/// As many requests as come; `None` at the end of the connection, or of sense.
async fn answer_all(mut stream: TcpStream, voice: Vec<u8>) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await.ok()? == 0 || read.len() > 1 << 20 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let body: usize = length.unwrap_or(0);
        while read.len() < end + body {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        read.drain(..end + body);
        let (kind, said): (_, &[u8]) = match head.split(' ').nth(1)? {
            "/stt" => ("application/json", b"{\"text\":\"hello there\"}"),
            "/agent" => ("text/plain", b"Good morning."),
            _ => ("audio/basic", &voice),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", said.len());
        stream.write_all(&[head.as_bytes(), said].concat()).await.ok()?;
    }
}

/// Each message is answered as `answer` says; with nothing further to say, the connection is closed.
async fn socket(answer: fn(&Message) -> Answer) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut ws) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = ws.next().await {
                    let (text, ends) = match answer(&message) {
                        Answer::Nothing => continue,
                        Answer::Say(text) => (text, false),
                        Answer::SayLast(text) => (text, true),
                    };
                    if ws.send(Message::text(text)).await.is_err() || ends {
                        break;
                    }
                }
                let _ = ws.close(None).await;
            });
        }
    });
    port
}

enum Answer {
    Nothing,
    Say(&'static str),
    SayLast(&'static str),
}

pub async fn recogniser() -> u16 {
    socket(|message| match message {
        Message::Binary(_) => Answer::Say(r#"{"partial": ""}"#),
        Message::Text(text) if text.contains("eof") => Answer::SayLast(r#"{"text": "hello there"}"#),
        _ => Answer::Nothing,
    })
    .await
}

pub async fn relay_app() -> u16 {
    socket(|message| match message {
        Message::Text(text) if text.contains("\"prompt\"") => {
            Answer::Say(r#"{"type": "text", "token": "Good morning.", "last": true}"#)
        }
        _ => Answer::Nothing,
    })
    .await
}
