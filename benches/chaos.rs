//! A thousand calls over a minute, each connection of theirs and of the gateway's to its services in a trouble of its
//! own: `cargo bench --bench chaos`, or `-- CALLS SECONDS SEED`. It fails if a call is not accounted for or if
//! anything is left of one; what it makes is in `tests/it/chaos`.
#![allow(clippy::unwrap_used, dead_code, reason = "what the tests share has more than is used here")]
#![allow(unreachable_pub, unused_imports, reason = "and offers it to the others")]

#[path = "../tests/it/chaos/mod.rs"]
mod chaos;
#[path = "../tests/it/world/mod.rs"]
mod world;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let (calls, seconds) = (numbers.next().unwrap_or(1_000), numbers.next().unwrap_or(60));
    let seed = numbers.next().unwrap_or(1);
    println!("{}", chaos::run(calls, std::time::Duration::from_secs(seconds), seed));
}
