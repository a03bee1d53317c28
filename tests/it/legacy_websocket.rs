//! The app's own WebSockets through the gateway: joined to the app untouched, and nothing but a 101
//! of the app's lets a client speak to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::world::{Gateway, LegacyApp, SOON, TcpApp, Wire, block_on, free_port, header, run, until};

const PATH: &str = "/ws/legacy-echo";
/// What RFC 6455 wants to hear to the key of its example, which `upgrade` sends.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: bot.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

#[test]
fn every_kind_of_message_comes_back() {
    let app = LegacyApp::start();
    let gateway = Gateway::echo(app.port);
    block_on(async {
        let url = format!("ws://127.0.0.1:{}{PATH}", gateway.port);
        let (mut ws, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let large: String = ('a'..='z').cycle().take(1 << 20).collect();
        for message in [
            Message::text("hello"),
            Message::text(""),
            Message::binary(vec![0, 255, 10, 13]),
            Message::text(large.clone()),
            Message::binary(large.into_bytes()),
        ] {
            ws.send(message.clone()).await.unwrap();
            assert_eq!(ws.next().await.unwrap().unwrap(), message);
        }
        ws.send(Message::Ping("are you there".into())).await.unwrap();
        assert_eq!(ws.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
        ws.close(None).await.unwrap();
        while ws.next().await.is_some_and(|message| message.is_ok()) {}
    });
    until("the tunnel to be logged", || {
        let lines = gateway.events("HTTP");
        lines.into_iter().find(|line| line["route"] == "app_upgrade" && line["status"] == 101)
    });
}

#[test]
fn close_codes_arrive_on_either_side() {
    let goodbye = |code: u16, reason: &str| {
        Message::Close(Some(CloseFrame { code: code.into(), reason: reason.to_owned().into() }))
    };
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = Gateway::echo(listener.local_addr().unwrap().port());
        let url = format!("ws://127.0.0.1:{}/chat", gateway.port);
        for first in ["client", "app"] {
            let accepted =
                async { tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap() };
            let (mut app, client) = tokio::join!(accepted, tokio_tungstenite::connect_async(&url));
            let mut client = client.unwrap().0;
            if first == "client" {
                client.send(goodbye(4321, "enough")).await.unwrap();
                assert_eq!(app.next().await.unwrap().unwrap(), goodbye(4321, "enough"));
            } else {
                app.send(goodbye(1012, "restarting")).await.unwrap();
                assert_eq!(client.next().await.unwrap().unwrap(), goodbye(1012, "restarting"));
            }
        }
    });
}

#[test]
fn the_head_arrives_as_it_was_sent_and_the_apps_answer_too() {
    let app = TcpApp::start(|_, wire| {
        let options = "Sec-WebSocket-Protocol: chat.v2\r\n\
                       Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n\
                       Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n";
        // The first frame rides along with the 101; the bytes are no WebSocket's, as is the app's right.
        wire.send(format!("{SWITCHING}{options}\r\n\u{1}first"));
        let said = wire.take(7);
        wire.send([b"heard ", &said[..]].concat());
    });
    let gateway = Gateway::echo(app.port);
    let mut wire = Wire::to(gateway.port);
    let offer = "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                 Cookie: session=1\r\nX-Forwarded-For: 203.0.113.9\r\nOrigin: https://bot.example.com\r\n";
    wire.send(upgrade("/chat?room=%C3%A4&x=1", offer) + "\u{0}early!");
    let head = wire.head();
    assert!(head.starts_with(SWITCHING), "{head}");
    assert_eq!(header(&head, "Sec-WebSocket-Protocol"), Some("chat.v2"));
    let deflate = header(&head, "Sec-WebSocket-Extensions");
    assert_eq!(deflate, Some("permessage-deflate; server_no_context_takeover"));
    assert!(head.contains("Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"), "{head}");
    assert_eq!(wire.rest(), b"\x01firstheard \x00early!", "bytes on their way");
    let asked = &app.heads()[0];
    assert!(asked.starts_with("GET /chat?room=%C3%A4&x=1 HTTP/1.1\r\n"), "{asked}");
    for (name, value) in [
        ("Host", "bot.example.com"),
        ("Sec-WebSocket-Protocol", "chat.v1, chat.v2"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Cookie", "session=1"),
        ("Origin", "https://bot.example.com"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Host", "bot.example.com"),
        ("X-Forwarded-Proto", "http"),
    ] {
        assert_eq!(header(asked, name), Some(value), "{name}");
    }
    assert!(header(asked, "X-Request-Id").is_some_and(|id| id.len() > 8), "{asked}");
}

#[test]
fn compression_and_subprotocol_are_the_apps_business() {
    let app = LegacyApp::start();
    let gateway = Gateway::echo(app.port);
    for port in [app.port, gateway.port] {
        let url = format!("ws://127.0.0.1:{port}{PATH}");
        let done = run("python", &["tests/services/ws_handshake.py", &url, "--deflate", "--offer", "chat"]);
        let seen: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        // The same through the gateway as without it; how it closed is chance with this app.
        assert_eq!((&seen["opened"], &seen["received"]), (&true.into(), &2.into()), "{seen}");
        assert!(seen["extensions"].as_str().is_some_and(|all| all.contains("deflate")), "{seen}");
    }
}

#[test]
fn a_refusal_of_the_apps_passes_through() {
    let app = LegacyApp::start();
    let gateway = Gateway::echo(app.port);
    let answer = Wire::ask(gateway.port, &upgrade("/no/websocket", ""));
    assert_eq!(answer.status(), 200);
    assert!(answer.text().contains("fell through to the app"), "{}", answer.text());

    let app = TcpApp::start(|head, wire| match head.contains("/chunked") {
        true => wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        false => {
            wire.send(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 6\r\n",
            );
            wire.send("Connection: keep-alive\r\nSet-Cookie: a=1\r\n\r\nfor");
            wire.send("bid");
            wire.rest();
        }
    });
    let gateway = Gateway::echo(app.port);
    let mut wire = Wire::to(gateway.port);
    wire.send(upgrade("/length", ""));
    let answer = wire.answer();
    assert_eq!((answer.status(), answer.text()), (403, "forbid"));
    assert_eq!((answer.header("Connection"), answer.header("Set-Cookie")), (Some("close"), Some("a=1")));
    assert_eq!(wire.rest(), b"", "the connection is closed behind it");
    let line = until("the refusal in the log", || {
        gateway.events("HTTP").into_iter().find(|line| line["path"] == "/length")
    });
    assert_eq!((&line["status"], &line["route"]), (&403.into(), &"app_upgrade".into()));
    let mut wire = Wire::to(gateway.port);
    wire.send(upgrade("/chunked", ""));
    assert_eq!(header(&wire.head(), "Transfer-Encoding"), Some("chunked"));
    assert_eq!(wire.rest(), b"3\r\nabc\r\n0\r\n\r\n");
}

/// As an app does that answers with events, and as one that keeps its connection.
#[test]
fn a_refusal_in_pieces_comes_as_it_is_written() {
    let (go_on, told) = std::sync::mpsc::channel::<&str>();
    let told = Mutex::new(told);
    let app = TcpApp::start(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while let Ok(piece) = told.lock().unwrap().recv() {
            wire.send(piece);
        }
    });
    let gateway = Gateway::echo(app.port);
    let mut wire = Wire::to(gateway.port);
    wire.send(upgrade("/events", ""));
    assert!(wire.head().starts_with("HTTP/1.1 200 "));
    for piece in ["3\r\nabc\r\n", "3\r\ndef\r\n", "0\r\n\r\n"] {
        go_on.send(piece).unwrap();
        assert_eq!(wire.take(piece.len()), piece.as_bytes());
    }
}

/// Behind an upgrade that the app did not grant, the next request must meet the dispatch again:
/// else anybody could reach the app past it, at the media path too.
#[test]
fn nothing_is_smuggled_behind_an_upgrade_that_was_refused() {
    let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nnope";
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = heard.clone();
    let app = TcpApp::start(move |head, wire| {
        let mut head = head.to_owned();
        while !head.is_empty() {
            match (header(&head, "Content-Length"), header(&head, "Transfer-Encoding")) {
                (Some(length), _) => drop(wire.take(length.parse().unwrap())),
                (_, Some(_)) => drop(wire.until(b"0\r\n\r\n")),
                (None, None) => {}
            }
            all.lock().unwrap().push(head);
            wire.try_send(answer);
            head = wire.head();
        }
    });
    let gateway = Gateway::echo(app.port);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n".to_owned()
        + &upgrade("/ws/twilio-media", "");
    // Once at once behind the first, and once after its answer.
    let mut wire = Wire::to(gateway.port);
    wire.send(upgrade("/ws/none", "") + &smuggled);
    wire.until(b"nope");
    wire.try_send(&smuggled);
    wire.end();
    assert_eq!(String::from_utf8_lossy(&wire.rest()), "");
    // Behind a body that an upgrade might hide, and where there can be no upgrade.
    for odd in [
        upgrade("/ws/none", "Content-Length: 3\r\n").replacen("GET", "POST", 1) + "abc",
        upgrade("/ws/none", "").replacen("HTTP/1.1", "HTTP/1.0", 1),
        upgrade("/ws/none", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
        upgrade("/ws/none", "").replacen("websocket", "h2c", 1),
    ] {
        let mut wire = Wire::to(gateway.port);
        wire.send(odd + &smuggled);
        wire.until(b"nope");
        wire.end();
        wire.rest();
    }
    let heard = heard.lock().unwrap();
    assert!(heard.len() >= 5, "{heard:#?}");
    for head in heard.iter() {
        assert!(!head.contains("twilio-media") && header(head, "X-Request-Id").is_some(), "smuggled: {head}");
    }
}

/// Whatever the app has answered: a client that reads nothing of it does not keep the process from its end, nor
/// does an app that does not go on.
#[test]
fn who_does_not_go_on_is_not_waited_for() {
    let app = TcpApp::start(|head, wire| {
        let length = if head.contains("/stalls") { 8 } else { 1u64 << 40 };
        match head.contains("/joined") {
            true => wire.send(format!("{SWITCHING}\r\n")),
            false => wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhalf")),
        }
        while !head.contains("/stalls") && wire.try_send([0; 100_000]) {}
        wire.rest();
    });
    let limits = "[limits]\nbody_timeout = \"300ms\"\nmin_body_rate = 1000000\n";
    let upstream =
        format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\nstall_timeout = \"1s\"\n", app.port);
    let mut gateway = Gateway::start(&format!("{limits}{upstream}"));
    let mut clients: Vec<Wire> = ["/joined", "/page", "/stalls"]
        .into_iter()
        .map(|path| {
            let mut client = Wire::to(gateway.port);
            client.send(upgrade(path, ""));
            client
        })
        .collect();
    (0..3).for_each(|nth| drop(gateway.event("HTTP", nth)));
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    assert!(clients[2].rest().ends_with(b"half"));
}

/// A client that has vanished says nothing more, and neither may the app: the system asks.
#[test]
fn the_system_looks_whether_who_is_silent_is_still_there() {
    let app = TcpApp::start(|_, wire| {
        wire.send(format!("{SWITCHING}\r\n"));
        wire.rest();
    });
    let gateway = Gateway::echo(app.port);
    let mut client = Wire::to(gateway.port);
    client.send(upgrade(PATH, ""));
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    // The connections of the gateway that are established: to whom, and which timer runs.
    let timers = |port: u16, own: usize| {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let here = format!("0100007F:{port:04X}");
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = lines.filter(|line| line.get(own) == Some(&here.as_str()) && line[3] == "01");
        ours.map(|line| line[5][..2].to_owned()).collect::<Vec<_>>()
    };
    const KEEPALIVE: &str = "02";
    until("the client to be looked after", || (timers(gateway.port, 1) == [KEEPALIVE]).then_some(()));
    until("the app to be looked after", || (timers(app.port, 2) == [KEEPALIVE]).then_some(()));
}

#[test]
fn an_app_that_is_down_or_silent_is_told_apart() {
    let gateway = Gateway::echo(free_port());
    let answer = Wire::ask(gateway.port, &upgrade(PATH, ""));
    assert_eq!(answer.status(), 502, "{answer:?}");
    assert!(answer.text().contains("refuses connections"), "{}", answer.text());
    let silent = TcpApp::start(|_, wire| drop(wire.rest()));
    let config = format!(
        "[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\nfirst_byte_timeout = \"200ms\"\n",
        silent.port
    );
    let gateway = Gateway::start(&config);
    let answer = Wire::ask(gateway.port, &upgrade(PATH, ""));
    assert_eq!(answer.status(), 504, "{answer:?}");
    let gone = TcpApp::start(|_, _| {});
    let answer = Wire::ask(Gateway::echo(gone.port).port, &upgrade(PATH, ""));
    assert_eq!(answer.status(), 502, "{answer:?}");
}

/// One upgrade, one message to and fro.
async fn upgraded(port: u16, path: &str) -> Result<(), String> {
    let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request().unwrap();
    request.headers_mut().insert("User-Agent", "many".parse().unwrap());
    let talk = async {
        let (mut ws, _) = tokio_tungstenite::connect_async(request).await.map_err(|e| e.to_string())?;
        ws.send(Message::text("hello")).await.map_err(|e| e.to_string())?;
        match ws.next().await {
            Some(Ok(message)) if message == Message::text("hello") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    tokio::time::timeout(SOON, talk).await.unwrap_or_else(|_| Err("no answer".into()))
}

/// So many upgrades, so many at once; what went wrong.
async fn many(port: u16, path: &str, total: usize, at_once: usize) -> Vec<String> {
    let next = Arc::new(AtomicUsize::new(0));
    let workers = (0..at_once).map(|_| {
        let (next, path) = (next.clone(), path.to_owned());
        tokio::spawn(async move {
            let mut failed = Vec::new();
            while next.fetch_add(1, Ordering::SeqCst) < total {
                failed.extend(upgraded(port, &path).await.err());
            }
            failed
        })
    });
    let mut failed = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        failed.extend(worker.await.unwrap());
    }
    failed
}

/// A WebSocket app as fast as one can be: it answers as soon as it can, and echoes.
async fn fast_app(listener: TcpListener) {
    async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let key = header(&head, "sec-websocket-key").unwrap_or_default();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        stream.write_all(SWITCHING.replace(ACCEPT, &accept).as_bytes()).await?;
        stream.write_all(b"\r\n").await?;
        // The echo of `hello`, a frame of five bytes with a mask.
        let mut frame = [0; 11];
        stream.read_exact(&mut frame).await?;
        let hello: Vec<u8> = frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(a, b)| a ^ b).collect();
        stream.write_all(&[&[0x81, 5], &hello[..]].concat()).await?;
        stream.read_buf(&mut hello.clone()).await.map(drop)
    }
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream));
    }
}

/// cloudflare/pingora #946: 1 to 4 % of upgrades were torn down.
#[test]
fn fifteen_hundred_upgrades_and_none_fails() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = Gateway::echo(listener.local_addr().unwrap().port());
        tokio::spawn(fast_app(listener));
        assert_eq!(many(gateway.port, "/chat", 1_500, 32).await, Vec::<String>::new());
    });
    let app = LegacyApp::start();
    let gateway = Gateway::echo(app.port);
    assert_eq!(block_on(many(gateway.port, PATH, 150, 8)), Vec::<String>::new());
}
