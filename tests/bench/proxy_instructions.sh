#!/usr/bin/env bash
# Instructions that a forwarded request costs inside the process, by valgrind's callgrind: voxgate's, with its line
# of the log, and those of Pingora by itself. Much the same figure again and again, whatever else the machine is
# doing; what the kernel does is not in it. proxy_instructions.sh [--limit] fails where voxgate costs more than is
# written here, which is what it cost when this was written and a twentieth more.
#
# Wants nginx, hey and valgrind (Debian), and: cargo build --release --bins --examples
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
declare -A limit=([voxgate]=104000 [bare]=81000)
release="${CARGO_TARGET_DIR:-target}/release"
voxgate="${VOXGATE:-$release/voxgate}" bare="${BARE:-$release/examples/bare_proxy}"
origin=127.0.0.1:9381 listen=127.0.0.1:9382 admin=127.0.0.1:9383
folder="$(mktemp -d)"
trap 'kill -INT $(jobs -p) 2>/dev/null || true; sleep 1; kill -KILL $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
cat >"$folder/nginx.conf" <<CONF
daemon off;
pid $folder/nginx.pid;
error_log $folder/nginx.log;
events { worker_connections 256; }
http {
  access_log off;
  keepalive_requests 1000000;
  server { listen $origin; location / { return 200 "a small answer"; } }
}
CONF
nginx -p "$folder" -c "$folder/nginx.conf" 2>/dev/null &
cat >"$folder/gateway.toml" <<TOML
[server]
listen = "$listen"
threads = 1
[admin]
listen = "$admin"
[upstreams.app]
servers = ["$origin"]
TOML

# count NAME REQUESTS
count() {
  local counted=(valgrind --tool=callgrind --callgrind-out-file=/dev/null) process
  case "$1" in
  voxgate) "${counted[@]}" "$voxgate" run --config "$folder/gateway.toml" 2>"$folder/log" & ;;
  bare) "${counted[@]}" "$bare" "$listen" "$origin" 1 2>"$folder/log" & ;;
  esac
  process=$!
  until curl -sfo /dev/null "http://$listen/"; do sleep 0.1; done
  hey -n "$2" -c 8 "http://$listen/" >/dev/null
  kill -INT "$process"
  wait "$process" || true
  sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$folder/log"
}

. tests/bench/each.sh
each request 800 3200 bare voxgate
[ "${1:-}" != --limit ] || exit "$over"
