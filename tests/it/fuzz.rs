//! The corpora of the fuzz targets, replayed: what the fuzzer has found, and what it began with.

use std::fs;

use crate::world::project;

#[path = "../fuzz/targets/mod.rs"]
mod targets;

/// As much of a corpus is committed, and no more: files, and bytes.
const MOST_FILES: usize = 200;
const MOST_BYTES: usize = 500 * 1024;

fn replay(name: &str) {
    let (_, run) = targets::ALL.into_iter().find(|(target, _)| *target == name).expect("a target");
    let folder = project().join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut bytes = 0;
    for file in &files {
        // What fails is told with this line before it.
        println!("{}", file.display());
        let input = fs::read(file).unwrap();
        bytes += input.len();
        run(&input);
    }
    assert!((10..=MOST_FILES).contains(&files.len()), "{} files", files.len());
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
}

macro_rules! corpora {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_fuzzed_and_replayed() {
            let all = targets::ALL.map(|(name, _)| name);
            assert_eq!(all, [$(stringify!($name)),*]);
            let recipe = fs::read_to_string(project().join("tests/fuzz/Cargo.toml")).unwrap();
            for name in all {
                assert!(recipe.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} has no program");
            }
        }
    };
}

corpora!(answers, audio, call, config, forwarded, realtime, relay, twiml, wire);
