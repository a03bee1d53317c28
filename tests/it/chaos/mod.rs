//! Every connection in trouble: a proxy that makes it stands in front of the gateway and of each of its services, and
//! seeded dice say what is wrong with which. Afterwards every call is accounted for, from what its caller knows to
//! the last line of the log, and nothing is left of any. `cargo bench --bench chaos` makes a thousand calls.

mod proxy;
mod services;
mod trouble;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use voxgate::cli::call::{CallOptions, CallReport, Step, run_call};

use crate::world::{Gateway, tone};
use proxy::{Proxy, Seen};
use trouble::Dice;

/// A call, its goodbye included, takes no longer, whatever happens to it.
const LONGEST_CALL: Duration = Duration::from_secs(60);
/// How long what is left of a call may stay: longer than any time-out of the gateway's.
const LEFT_OVER: Duration = Duration::from_secs(60);
/// What a gateway may have taken for good: pages that its allocator keeps.
const KEPT_KIB: u64 = 24 * 1024;

const PATIENCE: Duration = Duration::from_secs(3);

/// What is short here is long in the world: nobody wants to wait for it.
const LIMITS: &str = "[turn]\ngreeting = \"Good morning.\"\ndedup_window_sec = 0\n\
    [limits]\nstart_timeout = \"2s\"\nmedia_timeout = \"4s\"\nwrite_timeout = \"3s\"\nhead_timeout = \"3s\"\n";

/// A gateway with its services, and the troubles between them.
struct World {
    name: &'static str,
    gateway: Gateway,
    callers: Proxy,
    upstreams: Vec<(&'static str, Proxy)>,
}

impl World {
    /// All services over HTTP, or those that can be over WebSockets.
    async fn new(name: &'static str, seed: u64) -> World {
        let http = services::http(tone(400).to_vec()).await;
        let (mut upstreams, mut config) = (Vec::new(), LIMITS.to_owned());
        let ports = match name {
            "http" => [("stt", http), ("agent", http), ("tts", http)],
            _ => {
                [("stt", services::recogniser().await), ("agent", services::relay_app().await), ("tts", http)]
            }
        };
        let kinds: [&str; 3] = match name {
            "http" => ["webhook", "webhook", "webhook"],
            _ => ["vosk", "conversation_relay", "webhook"],
        };
        config.push_str("[dialogue]\nmode = \"dialogue\"\nreply_deadline = \"2s\"\n");
        for (n, ((service, port), kind)) in ports.into_iter().zip(kinds).enumerate() {
            let proxy = Proxy::before(port, seed ^ (n as u64 + 1) << 32).await;
            let more = if service == "tts" { "cache_mib = 0\n" } else { "" };
            config.push_str(&format!(
                "[dialogue.{service}]\nkind = \"{kind}\"\nupstream = \"{service}\"\npath = \"/{service}\"\n{more}"
            ));
            config.push_str(&format!(
                "[upstreams.{service}]\nservers = [\"127.0.0.1:{}\"]\nconnect_timeout = \"500ms\"\n\
                 first_byte_timeout = \"1s\"\nstall_timeout = \"2s\"\nbreaker_failures = 0\nhealth_interval = \"0s\"\n",
                proxy.port
            ));
            upstreams.push((service, proxy));
        }
        let gateway = Gateway::start(&config);
        let callers = Proxy::before(gateway.port, seed).await;
        World { name, gateway, callers, upstreams }
    }
}

/// What a caller does: talks for a while, some of them over the bot, some with keys, and hangs up or just goes.
fn script(dice: &mut Dice) -> (Vec<Step>, Option<Duration>) {
    let mut script = vec![Step::WaitForSilence { quiet: Duration::from_millis(300), timeout: PATIENCE }];
    script.push(Step::Say(tone(300 + dice.below(900) as usize)));
    match dice.below(4) {
        0 => {
            let after = dice.ms(400);
            script.push(Step::Interrupt { after, audio: tone(400), timeout: PATIENCE });
        }
        1 => script.extend([Step::Dtmf('1'), Step::Dtmf('#'), Step::Pause(dice.ms(500))]),
        // In the middle of everything.
        2 => return (script, None),
        _ => {}
    }
    script.push(Step::wait_for_reply_end(PATIENCE));
    (script, Some(dice.ms(8_000)))
}

/// What came of a call, as its caller sees it.
struct Outcome {
    number: u64,
    report: Result<CallReport, String>,
}

async fn call(port: u16, number: u64, mut dice: Dice) -> Outcome {
    let (script, repeat_for) = script(&mut dice);
    let options = CallOptions {
        call_sid: Some(format!("CA{number:032}")),
        connect_timeout: Duration::from_secs(5),
        repeat_for,
        record: false,
        ..CallOptions::new(format!("ws://127.0.0.1:{port}/ws/twilio-media"))
    };
    let report =
        timeout(LONGEST_CALL, run_call(options, script)).await.expect("a caller that is kept for ever");
    Outcome { number, report: report.map_err(|error| format!("{error:#}")) }
}

/// Makes so many calls over so long a time, and asserts that nothing of them is lost and nothing left. What happened.
pub fn run(calls: u64, over: Duration, seed: u64) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let worlds =
        runtime.block_on(async { [World::new("http", seed).await, World::new("sockets", !seed).await] });
    // What is made once is paid for before.
    runtime.block_on(async {
        let mut first = JoinSet::new();
        for n in 0..20 {
            first.spawn(call(worlds[n as usize % 2].gateway.port, u64::MAX - n, Dice(n)));
        }
        first.join_all().await
    });
    std::thread::sleep(Duration::from_secs(3));
    let before: Vec<Before> = worlds.iter().map(Before::of).collect();
    let begun = Instant::now();
    let outcomes = runtime.block_on(async {
        let mut made = JoinSet::new();
        for number in 0..calls {
            let at = begun + over.mul_f64(number as f64 / calls as f64);
            let port = worlds[number as usize % 2].callers.port;
            let dice = Dice(seed ^ number.wrapping_mul(0x9e37_79b9));
            made.spawn(async move {
                sleep_until(at).await;
                call(port, number, dice).await
            });
        }
        made.join_all().await
    });
    let mut told = format!("{calls} calls in {:.0} s, seed {seed}\n", begun.elapsed().as_secs_f64());
    for (n, (world, before)) in worlds.iter().zip(&before).enumerate() {
        let of_world = outcomes.iter().filter(|outcome| outcome.number as usize % 2 == n);
        told += &settle(world, before, &of_world.collect::<Vec<_>>());
    }
    told
}

/// A gateway before the calls.
struct Before {
    files: usize,
    threads: usize,
    rss_kib: u64,
    series: BTreeMap<String, f64>,
    lines: usize,
}

impl Before {
    fn of(world: &World) -> Before {
        let gateway = &world.gateway;
        Before {
            files: gateway.open_files(),
            threads: gateway.threads(),
            rss_kib: gateway.rss_kib(),
            series: series(gateway),
            lines: gateway.log().len(),
        }
    }
}

/// What is counted of calls and handshakes.
fn series(gateway: &Gateway) -> BTreeMap<String, f64> {
    let (_, text) = gateway.admin_get("/metrics");
    let of_calls = ["voxgate_calls_", "voxgate_ws_handshakes_total", "voxgate_http_inflight"];
    let lines = text.lines().filter(|line| of_calls.iter().any(|name| line.starts_with(name)));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Waits until the gateway is as before, and accounts for the calls.
fn settle(world: &World, before: &Before, outcomes: &[&Outcome]) -> String {
    let gateway = &world.gateway;
    let since = Instant::now();
    let is_left = |now: &BTreeMap<String, f64>| {
        ["voxgate_calls_active", "voxgate_calls_unstarted", "voxgate_http_inflight"]
            .iter()
            .any(|name| now[*name] > 0.0)
            || gateway.open_files() > before.files + 2
    };
    let mut now = series(gateway);
    while is_left(&now) && since.elapsed() < LEFT_OVER {
        std::thread::sleep(Duration::from_millis(200));
        now = series(gateway);
    }
    let counted = |of: &str| -> BTreeMap<String, u64> {
        let more = now.iter().filter(|(name, _)| name.starts_with(of));
        let more = more.map(|(name, value)| (name, (value - before.series[name]) as u64));
        more.filter(|(_, value)| *value > 0)
            .map(|(name, value)| (name.split('"').nth(1).unwrap_or("calls").to_owned(), value))
            .collect()
    };
    let sum = |of: &BTreeMap<String, u64>| of.values().sum::<u64>();
    let log: Vec<Value> = gateway.log().split_off(before.lines);
    let lines = |name: &str| log.iter().filter(|line| line["message"] == name).collect::<Vec<_>>();
    let (handshakes, reasons) = (counted("voxgate_ws_handshakes_total"), counted("voxgate_calls_total"));
    let (accepted, unstarted) = (handshakes["ok"], sum(&counted("voxgate_calls_without_start_total")));

    let seen = world.callers.seen();
    let served = outcomes.iter().filter(|o| o.report.as_ref().is_ok_and(|r| r.problem().is_none())).count();
    let mut told =
        format!("\n{}: {} calls, {served} of them without a blemish\n", world.name, outcomes.len());
    for (name, proxy) in
        std::iter::once(("callers", &world.callers)).chain(world.upstreams.iter().map(|(n, p)| (*n, p)))
    {
        told += &format!("  {name}: {}\n", fallen(&proxy.seen()));
    }
    told += &format!("  handshakes {handshakes:?}; without start {unstarted}; ended {reasons:?}\n");

    // The callers: each made one connection, and those of their requests that arrived were answered.
    assert_eq!(seen.len(), outcomes.len(), "{told}");
    let asked = seen.iter().filter(|seen| seen.has_asked() && !seen.is_harmed()).count() as u64;
    let harmed = seen.iter().filter(|seen| seen.has_asked() && seen.is_harmed()).count() as u64;
    let answered = sum(&handshakes);
    assert!(
        (asked..=asked + harmed).contains(&answered),
        "{asked} whole, {harmed} harmed, {answered} counted: {told}"
    );

    // The gateway: every call that it took has ended, and says why in its last line.
    assert_eq!(accepted, unstarted + sum(&reasons), "{told}");
    let stops = lines("WS_STOP");
    assert_eq!(stops.len() as u64, accepted, "{told}");
    let mut last: HashMap<&str, &Value> = HashMap::new();
    for line in log.iter().filter(|line| line["message"] != "HTTP") {
        if let Some(call_sid) = line["call_sid"].as_str() {
            last.insert(call_sid, line);
        }
    }
    let is_told = |line: &Value| {
        line["message"] == "WS_STOP" && line["reason"].as_str().is_some_and(|why| !why.is_empty())
    };
    let ends = lines("WS_START").into_iter().map(|start| last[start["call_sid"].as_str().unwrap()]);
    let untold: Vec<_> = ends.filter(|end| !is_told(end)).collect();
    assert!(untold.is_empty(), "{untold:#?}: {told}");

    // And nothing is left.
    assert!(!is_left(&now), "{now:?}, {} files for {}: {told}", gateway.open_files(), before.files);
    assert!(gateway.threads() <= before.threads, "{} threads", gateway.threads());
    let grown = gateway.rss_kib().saturating_sub(before.rss_kib);
    told += &format!(
        "  left: {} files for {}, {} threads, {grown} KiB more, after {:.0} s\n",
        gateway.open_files(),
        before.files,
        gateway.threads(),
        since.elapsed().as_secs_f64()
    );
    assert!(grown < KEPT_KIB, "{told}");
    assert_eq!(gateway.noise(), Vec::<String>::new(), "{told}");
    told
}

fn fallen(seen: &[Seen]) -> String {
    let mut count = BTreeMap::<_, usize>::new();
    seen.iter().for_each(|seen| *count.entry(seen.trouble.name()).or_default() += 1);
    count.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn every_call_is_accounted_for_whatever_its_connections_go_through() {
    println!("{}", run(60, Duration::from_secs(5), 20_261_126));
}
