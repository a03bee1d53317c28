//! A service of the test's own, for what no real one does on demand: it answers as a closure says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub body: Vec<u8>,
}

/// The way back; the connection ends with the answer.
pub struct Reply(TcpStream);

impl Reply {
    /// A whole answer.
    pub fn whole(&mut self, status: u16, content_type: &str, body: &[u8]) {
        self.head(status, content_type);
        self.write(body);
    }

    /// The head of an answer that is written in pieces.
    pub fn head(&mut self, status: u16, content_type: &str) {
        self.write(
            format!("HTTP/1.1 {status} Said\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
    }

    /// The same, of an answer that claims to be so long.
    pub fn head_of(&mut self, status: u16, content_type: &str, length: usize) {
        self.head(status, &format!("{content_type}\r\nContent-Length: {length}"));
    }

    /// A piece of the body; whether it could still be sent.
    pub fn write(&mut self, piece: &[u8]) -> bool {
        self.0.write_all(piece).and_then(|()| self.0.flush()).is_ok()
    }

    /// Waits until the other side has hung up.
    pub fn hung_up(&mut self) {
        let _ = self.0.read(&mut [0; 16]);
    }
}

pub struct Fake {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Serves until the test program ends; `answer` is also told how many requests came before.
    pub fn start(answer: impl Fn(usize, &Asked, &mut Reply) + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (kept, answer) = (kept.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(asked) = read(&socket) else { return };
                    let number = {
                        let mut kept = kept.lock().unwrap();
                        kept.push(asked.clone());
                        kept.len() - 1
                    };
                    answer(number, &asked, &mut Reply(socket));
                });
            }
        });
        Fake { port, asked }
    }

    /// A recogniser that always hears the same.
    pub fn stt(text: &'static str) -> Fake {
        Fake::start(move |_, _, reply| reply.whole(200, "text/plain", text.as_bytes()))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(socket: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(socket);
    let (mut head, mut line) = (Vec::new(), String::new());
    while lines.read_line(&mut line).ok()? > 2 {
        head.push(std::mem::take(&mut line));
    }
    let path = head.first()?.split(' ').nth(1)?.to_owned();
    let length = head.iter().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    lines.read_exact(&mut body).ok()?;
    Some(Asked { path, body })
}
