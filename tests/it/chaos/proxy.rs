//! A proxy that makes trouble: what comes in goes on to a server as it came, but for one thing that is wrong with
//! each connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::trouble::{Dice, Trouble, Way};

/// No connection is open for longer, whatever its ends think.
const LONGEST: Duration = Duration::from_secs(90);
/// So many packets of a connection are lost at most: a caller who has long gone is not heard for minutes.
const LOST: usize = 6;
/// What a slow reader takes, and how often.
const SIP: usize = 1_024;
const SLOWLY: Duration = Duration::from_millis(150);

/// A connection as the proxy saw it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub trouble: Trouble,
    /// How much of the head of the first request there was, and how much of it was let through.
    head: Option<usize>,
    through: usize,
}

impl Seen {
    /// Whether the server got a whole request.
    pub fn has_asked(&self) -> bool {
        self.head.is_some_and(|head| self.through >= head)
    }

    /// Whether it was another request than the one that was made.
    pub fn is_harmed(&self) -> bool {
        let Trouble::Flip { way: Way::There, at, .. } = self.trouble else { return false };
        self.head.is_none_or(|head| at < head)
    }
}

pub struct Proxy {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What becomes of both ways at once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Alive,
    Reset,
    Closed,
    Silent,
}

impl Proxy {
    /// In front of a server. The n-th connection has the trouble that falls for it.
    pub async fn before(server: u16, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let kept = seen.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = kept.lock().unwrap().len();
                let trouble =
                    Trouble::fallen(&mut Dice(seed ^ (number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d)));
                kept.lock().unwrap().push(Seen { trouble, head: None, through: 0 });
                let kept = kept.clone();
                let note = move |with: &dyn Fn(&mut Seen)| with(&mut kept.lock().unwrap()[number]);
                tokio::spawn(async move { timeout(LONGEST, connected(client, server, trouble, note)).await });
            }
        });
        Proxy { port, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn connected(
    mut client: TcpStream,
    server: u16,
    trouble: Trouble,
    note: impl Fn(&dyn Fn(&mut Seen)) + Sync,
) {
    let socket = TcpSocket::new_v4().unwrap();
    if trouble == Trouble::SlowReader(Way::Back) {
        socket.set_recv_buffer_size(4_096).unwrap();
    }
    let Ok(mut server) = socket.connect(SocketAddr::from(([127, 0, 0, 1], server))).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (decide, mut decided) = watch::channel(Fate::Alive);
    let fate = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = carry(from_client, to_server, Way::There, trouble, &decide, &note);
        let back = carry(from_server, to_client, Way::Back, trouble, &decide, &note);
        tokio::select! {
            _ = async { tokio::join!(there, back) } => Fate::Closed,
            fate = decided.wait_for(|fate| *fate != Fate::Alive) => fate.map_or(Fate::Closed, |fate| *fate),
        }
    };
    match fate {
        Fate::Alive | Fate::Closed => {}
        Fate::Reset => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
        // Until one of them gives up by itself: the other is not told even then.
        Fate::Silent => {
            tokio::join!(unheard(client), unheard(server));
        }
    }
}

/// Reads what nobody gets, to its end.
async fn unheard(mut socket: TcpStream) {
    let mut nowhere = [0; 4_096];
    while matches!(socket.read(&mut nowhere).await, Ok(1..)) {}
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    trouble: Trouble,
    decide: &watch::Sender<Fate>,
    note: &(impl Fn(&dyn Fn(&mut Seen)) + Sync),
) {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let delay = if let Trouble::Delay(delay) = trouble { delay } else { Duration::ZERO };
    let slow = trouble == Trouble::SlowReader(way);
    let read = async move {
        let mut piece = [0; 4_096];
        let room = if slow { SIP } else { piece.len() };
        while let Ok(length @ 1..) = from.read(&mut piece[..room]).await {
            if queue.send((Instant::now() + delay, piece[..length].to_vec())).await.is_err() {
                break;
            }
            if slow {
                sleep(SLOWLY).await;
            }
        }
    };
    let write = async move {
        let (mut sent, mut lost, mut head) = (0, 0, Head::default());
        let mut messages = Messages::default();
        while let Some((due, mut piece)) = queued.recv().await {
            sleep_until(due).await;
            if way == Way::There
                && let Some(ends) = head.ends_in(&piece)
            {
                note(&|seen| seen.head = Some(ends));
            }
            let until = sent + piece.len();
            let within = |at: usize| (sent..until).contains(&at);
            let mut end = None;
            match trouble {
                Trouble::Loss { way: w, every, pause }
                    if w == way && until / every > sent / every && lost < LOST =>
                {
                    lost += 1;
                    sleep(pause).await;
                }
                Trouble::Flip { way: w, at, bit } if w == way && within(at) => piece[at - sent] ^= 1 << bit,
                Trouble::Cut { way: w, at, reset } if w == way && within(at) => {
                    piece.truncate(at - sent);
                    end = Some(if reset { Fate::Reset } else { Fate::Closed });
                }
                Trouble::HalfOpen { way: w, at } if w == way && within(at) => {
                    piece.truncate(at - sent);
                    end = Some(Fate::Silent);
                }
                Trouble::Reorder { way: w, one_in } if w == way => piece = messages.shuffled(&piece, one_in),
                _ => {}
            }
            sent += piece.len();
            if to.write_all(&piece).await.is_err() {
                break;
            }
            if way == Way::There {
                note(&|seen| seen.through = sent);
            }
            if let Some(fate) = end {
                let _ = to.flush().await;
                decide.send_replace(fate);
            }
        }
        let _ = to.write_all(&messages.rest()).await;
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// Looks for the end of an HTTP head.
#[derive(Default)]
struct Head {
    read: Vec<u8>,
    found: bool,
}

impl Head {
    fn ends_in(&mut self, piece: &[u8]) -> Option<usize> {
        if self.found {
            return None;
        }
        self.read.extend_from_slice(piece);
        let end = self.read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        self.found = true;
        Some(end)
    }
}

/// The messages of a WebSocket, behind the handshake's head: whole ones change places.
#[derive(Default)]
struct Messages {
    head: Head,
    unread: Vec<u8>,
    count: u64,
    overtaken: Vec<u8>,
}

impl Messages {
    fn shuffled(&mut self, piece: &[u8], one_in: u64) -> Vec<u8> {
        if !self.head.found {
            let before = self.head.read.len();
            let Some(end) = self.head.ends_in(piece) else { return piece.to_vec() };
            let (head, first) = piece.split_at(end - before);
            return [head, &self.shuffled(first, one_in)].concat();
        }
        self.unread.extend_from_slice(piece);
        let mut out = Vec::new();
        while let Some(length) = whole(&self.unread) {
            let message: Vec<u8> = self.unread.drain(..length).collect();
            self.count += 1;
            // Text and binary: a ping that comes late is no news.
            let data = matches!(message[0] & 0x0f, 1 | 2);
            if data && self.count.is_multiple_of(one_in) && self.overtaken.is_empty() {
                self.overtaken = message;
            } else {
                out.extend(message);
                out.append(&mut self.overtaken);
            }
        }
        out
    }

    fn rest(self) -> Vec<u8> {
        [self.overtaken, self.unread].concat()
    }
}

/// The length of the WebSocket frame at the front, once it is all there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let masked = if bytes.get(1)? & 0x80 == 0 { 0 } else { 4 };
    let (header, length) = match bytes[1] & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let all = header + masked + usize::try_from(length).ok()?;
    (bytes.len() >= all).then_some(all)
}
