//! The floor under the figures of `benches/calls.sh`: servers that only move a call's messages.
//!
//! `epoll` is one thread, one buffer, one read and one write for each message, which is what the kernel
//! asks for them; `tungstenite` is an echo as anybody would write it with tokio-tungstenite. Neither looks
//! at the audio, keeps a clock, or survives a peer that means harm.
//!
//! `floor epoll|tungstenite PORT [TALK]`: TALK is the share of the time in which it echoes, in turns of
//! ten seconds: 0.5 is a bot that speaks half of the time.
//! `floor services PORT SECONDS` is what a dialogue asks, at once: a recogniser that hears "hello", an agent
//! of two words, and a voice of that many seconds.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Frames of a turn, together with its pause.
const TURN: u64 = 500;
const LISTENER: Token = Token(0);
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (server, port, number) = match args[..] {
        [server, port] => (server, port, "1"),
        [server, port, number] => (server, port, number),
        _ => return Err(invalid("floor epoll|tungstenite|services PORT [NUMBER]")),
    };
    let address = format!("127.0.0.1:{port}");
    let number: f64 = number.parse().map_err(|_| invalid("the last argument is a number"))?;
    match server {
        "epoll" => epoll(&address, (TURN as f64 * number) as u64),
        "tungstenite" => tungstenite(&address, (TURN as f64 * number) as u64),
        "services" => services(&address, (8_000.0 * number) as usize),
        _ => Err(invalid("floor epoll|tungstenite|services")),
    }
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, why)
}

/// Whether the message of this number is answered: a bot listens first.
fn answered(number: u64, talk: u64) -> bool {
    number % TURN >= TURN - talk
}

// ---- the kernel alone ----------------------------------------------------------------------------

struct Peer {
    stream: TcpStream,
    /// What has come of a head or of a frame that is not whole.
    partial: Vec<u8>,
    upgraded: bool,
    frames: u64,
}

fn epoll(address: &str, talk: u64) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address.parse().map_err(Error::other)?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut peers: HashMap<Token, Peer> = HashMap::new();
    let (mut next, mut events) = (LISTENER.0 + 1, Events::with_capacity(1024));
    let (mut read, mut write) = ([0; 64 * 1024], Vec::with_capacity(64 * 1024));
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    poll.registry().register(&mut stream, Token(next), Interest::READABLE)?;
                    peers.insert(
                        Token(next),
                        Peer { stream, partial: Vec::new(), upgraded: false, frames: 0 },
                    );
                    next += 1;
                }
                continue;
            }
            let Some(peer) = peers.get_mut(&event.token()) else { continue };
            if !serve(peer, talk, &mut read, &mut write) {
                peers.remove(&event.token());
            }
        }
    }
}

/// Reads once, as an edge-triggered reader may whose buffer was not filled. False: it is over.
fn serve(peer: &mut Peer, talk: u64, read: &mut [u8], write: &mut Vec<u8>) -> bool {
    loop {
        let kept = peer.partial.len();
        read[..kept].copy_from_slice(&peer.partial);
        let came = match peer.stream.read(&mut read[kept..]) {
            Ok(0) => return false,
            Ok(came) => came,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let filled = kept + came == read.len();
        write.clear();
        let Some(used) = frames(peer, talk, &mut read[..kept + came], write) else { return false };
        peer.partial.clear();
        peer.partial.extend_from_slice(&read[used..kept + came]);
        // A peer that does not read has no place in a measurement.
        if !write.is_empty() && !peer.stream.write(write).is_ok_and(|written| written == write.len()) {
            return false;
        }
        if !filled {
            return true;
        }
    }
}

/// Answers what is whole in it, and tells how much that was; `None` for a peer that closes.
fn frames(peer: &mut Peer, talk: u64, read: &mut [u8], write: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    if !peer.upgraded {
        let head = std::str::from_utf8(read).ok()?;
        let Some(end) = head.find("\r\n\r\n") else { return Some(0) };
        let key = head.lines().filter_map(|line| line.split_once(": "));
        let mut key = key.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
        let accept = derive_accept_key(key.next()?.1.as_bytes());
        write.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
        );
        write.extend_from_slice(format!("Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
        peer.upgraded = true;
        at = end + 4;
    }
    // Masked, and of less than 64 KiB: a client's messages.
    while let [opcode, length, ..] = read[at..] {
        let (header, length) = match (length & 0x7F, read.get(at + 2..at + 4)) {
            (126, Some(&[high, low])) => (4, usize::from(u16::from_be_bytes([high, low]))),
            (126, _) => break,
            (length, _) => (2, usize::from(length)),
        };
        let Some(frame) = read.get_mut(at + header..at + header + 4 + length) else { break };
        let (mask, payload) = frame.split_at_mut(4);
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[i % 4];
        }
        if opcode == CLOSE {
            return None;
        }
        if opcode == TEXT && payload.starts_with(br#"{"event":"media""#) {
            if answered(peer.frames, talk) {
                write.extend_from_slice(&[TEXT, 126, (length >> 8) as u8, length as u8]);
                write.extend_from_slice(payload);
            }
            peer.frames += 1;
        }
        at += header + 4 + length;
    }
    Some(at)
}

// ---- what a library adds -------------------------------------------------------------------------

#[tokio::main(flavor = "current_thread")]
async fn tungstenite(address: &str, talk: u64) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
            let mut frames = 0;
            while let Some(Ok(message)) = socket.next().await {
                let Message::Text(text) = message else { continue };
                if text.starts_with(r#"{"event":"media""#) {
                    if answered(frames, talk) && socket.send(Message::Text(text)).await.is_err() {
                        return;
                    }
                    frames += 1;
                }
            }
        });
    }
}

// ---- the services of a dialogue ------------------------------------------------------------------

#[tokio::main(flavor = "current_thread")]
async fn services(address: &str, spoken: usize) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    // Loud, and nothing like silence: 8,000 samples a second.
    let voice: Arc<[u8]> = (0..spoken).map(|n| if n % 20 < 10 { 0x20 } else { 0xA0 }).collect();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let voice = voice.clone();
        tokio::spawn(async move {
            let mut stream = stream;
            let mut read = Vec::with_capacity(64 * 1024);
            while let Ok(Some(path)) = request(&mut stream, &mut read).await {
                let (kind, body): (&str, &[u8]) = match path.as_str() {
                    "/stt" => ("application/json", br#"{"text":"hello"}"#),
                    "/agent" => ("text/plain", b"Good morning."),
                    _ => ("audio/basic", &voice),
                };
                let length = body.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
                if stream.write_all(&[head.as_bytes(), body].concat()).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Reads a request to its end, and tells what it asks for; `None` where nothing comes any more.
async fn request(stream: &mut tokio::net::TcpStream, read: &mut Vec<u8>) -> Result<Option<String>> {
    read.clear();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut headers);
        if let Ok(httparse::Status::Complete(end)) = head.parse(read) {
            let length =
                head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length =
                length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
            let whole = match length {
                Some(length) => read.len() >= end + length,
                None => read.ends_with(b"\r\n0\r\n\r\n"),
            };
            if whole {
                return Ok(head.path.map(str::to_owned));
            }
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}
