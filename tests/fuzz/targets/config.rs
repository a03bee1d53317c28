//! `gateway.toml`, whatever somebody has written there.

use voxgate::cli::explained;
use voxgate::config::{self, Env, Place, Source};

/// A text is a configuration, or each of its problems has its place in it, can be printed, and what is
/// printed is one that a program can read. A text that leads to other files is left out: what is in them
/// is not in the input.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains("file:") || text.contains('\\') {
        return;
    }
    let env = Env::from([("TOKEN".to_owned(), "a secret".to_owned())]);
    let source = Source::Text { name: "gateway.toml".to_owned(), text: text.to_owned() };
    let printed = config::print(&source, &env);
    match config::load(source.clone(), &env) {
        Ok(config) => {
            let entries = printed.expect("what holds can be printed");
            assert!(!entries.is_empty());
            voxgate::edge::settings(&config);
            assert_eq!(config::load(source, &env), Ok(config), "read again");
        }
        Err(problems) => {
            assert!(printed.is_err() && !problems.0.is_empty());
            for problem in &problems.0 {
                assert!(!problem.why.is_empty());
                if let Place::Text { line, column, span, .. } = &problem.place {
                    assert!(*line >= 1 && *column >= 1, "{problem}");
                    assert!(text.get(span.clone()).is_some(), "{problem}: {span:?}");
                    assert!(*line <= text.matches('\n').count() + 1, "{problem}");
                }
                let shown = explained(problem, text);
                assert!(shown.contains("help") && !shown.contains('\u{1b}'), "{shown}");
                assert!(!shown.contains("a secret"), "{shown}");
            }
        }
    }
    for strict in [false, true] {
        let masked = config::masked(text, None, strict);
        assert_eq!(masked.len(), text.len());
        assert_eq!(masked.matches('\n').count(), text.matches('\n').count());
    }
}
