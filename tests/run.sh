#!/usr/bin/env bash
# Installs what the tests need, and runs them all: form, lints, then every test with its real
# components (gunicorn, a recogniser, voices, WebSocket clients of other makes).
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh
cargo fmt --check
cargo clippy --locked --all-targets -- -D warnings
exec cargo test --locked
