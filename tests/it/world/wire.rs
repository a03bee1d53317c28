//! Bytes over TCP, without a client or a server that would be kind to them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::SOON;

/// One connection, from either end.
pub struct Wire {
    stream: TcpStream,
    /// Read and not asked for yet.
    ahead: Vec<u8>,
}

/// An HTTP answer, or a request as an app gets it.
#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: Vec<u8>,
}

impl Wire {
    pub fn to(port: u16) -> Wire {
        Wire::over(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    /// One on which so few bytes wait to be read.
    pub fn with_room(port: u16, bytes: u32) -> Wire {
        let stream = super::block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(bytes).unwrap();
            socket.connect(([127, 0, 0, 1], port).into()).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Wire::over(stream)
    }

    fn over(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, ahead: Vec::new() }
    }

    /// Sends a request and reads the whole answer.
    pub fn ask(port: u16, request: &str) -> Answer {
        let mut wire = Wire::to(port);
        wire.send(request);
        wire.answer()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The same, where the other end may have had enough.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Everything up to the empty line, with it. What came before the end of the connection, if it ends.
    pub fn head(&mut self) -> String {
        while !self.ahead.windows(4).any(|end| end == b"\r\n\r\n") && self.more() {}
        let end = self.ahead.windows(4).position(|end| end == b"\r\n\r\n");
        let head = self.ahead.drain(..end.map_or(self.ahead.len(), |end| end + 4)).collect();
        String::from_utf8(head).unwrap()
    }

    /// Exactly so many bytes.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.ahead.len() < bytes {
            assert!(self.more(), "the connection ended within {bytes} bytes");
        }
        self.ahead.drain(..bytes).collect()
    }

    /// A head, and the body that its Content-Length announces.
    pub fn answer(&mut self) -> Answer {
        let head = self.head();
        let mut answer = Answer { head, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = self.take(length);
        answer
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.ahead)
    }

    /// Reads on until this was seen; everything up to there.
    pub fn until(&mut self, wanted: &[u8]) -> Vec<u8> {
        let end = loop {
            if let Some(at) = self.ahead.windows(wanted.len()).position(|seen| seen == wanted) {
                break at + wanted.len();
            }
            assert!(self.more(), "the connection ended before {:?}", String::from_utf8_lossy(wanted));
        };
        self.ahead.drain(..end).collect()
    }

    /// Says that nothing more will come from here.
    pub fn end(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn more(&mut self) -> bool {
        let mut part = [0; 16 * 1024];
        match self.stream.read(&mut part) {
            Ok(read) => {
                self.ahead.extend_from_slice(&part[..read]);
                read > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}; so far {:?}", String::from_utf8_lossy(&self.ahead)),
        }
    }
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// The value of a header in a head.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// An app that does what the test says with each connection, and remembers the first head of each.
pub struct TcpApp {
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl TcpApp {
    pub fn start(serve: impl Fn(&str, &mut Wire) + Send + Sync + 'static) -> TcpApp {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = TcpApp { port, heads: Arc::default() };
        let (heads, serve) = (app.heads.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (heads, serve) = (heads.clone(), serve.clone());
                std::thread::spawn(move || {
                    let mut wire = Wire::over(stream);
                    let head = wire.head();
                    if !head.is_empty() {
                        heads.lock().unwrap().push(head.clone());
                        serve(&head, &mut wire);
                    }
                });
            }
        });
        app
    }

    /// Answers every request with 200 and `from the app`.
    pub fn polite() -> TcpApp {
        TcpApp::start(|_, wire| {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\nfrom the app")
        })
    }

    /// The first request of each connection, in order.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}
