#!/usr/bin/env bash
# Installs what the tests need, and runs them all: form, lints, then every test with its real
# components (gunicorn, a recogniser, voices, WebSocket clients of other makes), then how many instructions
# a frame takes. What it is built from is held to .deny.toml; the list of vulnerabilities needs more of the
# network than there may be here.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh
cargo fmt --check
cargo clippy --locked --all-targets -- -D warnings
PATH="$PWD/.venv/bin:$PATH" cargo deny --locked --config .deny.toml check bans licenses sources
# The fuzz targets' own lock file keeps up.
cargo tree --quiet --locked --manifest-path tests/fuzz/Cargo.toml >/dev/null
cargo test --locked
exec tests/bench/instructions.sh --limit
