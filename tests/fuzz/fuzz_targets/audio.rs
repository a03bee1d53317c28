#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(
    // The fuzzer ends at every panic, but those of a decoder are caught: what is not caught ends it all the same.
    init: drop(std::panic::take_hook()),
    |data: &[u8]| targets::audio::run(data)
);
