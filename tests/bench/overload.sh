#!/usr/bin/env bash
# Three times as many callers as there are places: overload.sh [CALLS] [SECONDS]. CALLS are live alone first, then while
# twice as many others keep asking, each by the voice webhook and then at the socket, once a second. Printed: how late
# the frames of the live ones are, then and now; how soon the others are refused, and whether each of them was counted.
# With CALLS above what the machine can do and OPEN=1, nothing is refused, and the figures say what that is like.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
voxgate="${VOXGATE:-${CARGO_TARGET_DIR:-target}/release/voxgate}"
[ -x "$voxgate" ] || { echo "build it first: cargo build --release" >&2; exit 2; }
calls="${1:-100}" seconds="${2:-20}"
ulimit -n 16384
port=9351
folder="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
limit=$calls
if [ -n "${OPEN:-}" ]; then limit=10000; fi

cat >"$folder/gateway.toml" <<TOML
[server]
listen = "127.0.0.1:$port"
[admin]
listen = "127.0.0.1:$((port + 1))"
[log]
format = "json"
[limits]
max_calls = $limit
max_memory_mb = ${MEMORY_MB:-0}
TOML
"$voxgate" run --config "$folder/gateway.toml" 2>"$folder/log" &
pid=$!
until curl -sf "http://127.0.0.1:$port/healthz" >/dev/null; do sleep 0.1; done
live() {
  "$voxgate" call "ws://127.0.0.1:$port/ws/twilio-media" --calls "$1" --ramp 3s --duration "$2s" --pid "$pid" --json
}
idle() { until curl -sf "http://127.0.0.1:$((port + 1))/metrics" | grep -q '^voxgate_calls_active 0$'; do sleep 0.2; done; }

live "$calls" "$((seconds + 5))" >"$folder/alone.json" || true
idle
if [ -n "${OPEN:-}" ]; then
  live "$((calls * 3))" "$((seconds + 5))" >"$folder/live.json" || true
  echo '{}' >"$folder/others.json"
else
  live "$calls" "$((seconds + 5))" >"$folder/live.json" &
  load=$!
  sleep 4
  .venv/bin/python tests/bench/refused.py "$port" "$((calls * 2))" "$seconds" >"$folder/others.json"
  wait "$load" || true
fi
idle
curl -sf "http://127.0.0.1:$((port + 1))/metrics" >"$folder/metrics"
.venv/bin/python - "$folder" "$calls" <<'PY'
import json, re, sys

folder, calls = sys.argv[1], int(sys.argv[2])
alone, live, others = (json.load(open(f"{folder}/{name}.json")) for name in ("alone", "live", "others"))
print(f"{'':24}{'served':>12}{'late p50':>10}{'p99':>8}{'max ms':>9}{'own p99':>9}{'underruns':>11}{'CPU ms/s/call':>15}")
for name, crowd in ((f"{alone['calls']} calls alone", alone), (f"{live['calls']} in the crowd", live)):
    late, own = crowd["lateness_ms"] or {}, crowd["own_lateness_ms"] or {}
    served = f"{crowd['served']}/{crowd['calls']}"
    print(f"{name:24}{served:>12}{late.get('p50', 0):>10.2f}{late.get('p99', 0):>8.2f}{late.get('max', 0):>9.1f}"
          f"{own.get('p99', 0):>9.2f}{crowd['underruns']:>11}{crowd['gateway']['cpu_ms_per_call_second']:>15.2f}")
    for problem in crowd["problems"][:3]:
        print("   ", problem)
fine = live["served"] == live["calls"]
if others:
    metrics = open(f"{folder}/metrics").read()
    count = lambda series: int(re.search(rf"^voxgate_{re.escape(series)} (\d+)", metrics, re.M)[1])
    for name, series in (("webhook", 'twiml_fallbacks_total{reason="capacity"}'),
                         ("socket", 'ws_handshakes_total{result="capacity"}')):
        asked = others[name]
        counted = count(series)
        print(f"refused at the {name}: {asked['refused']} of {asked['asked']}, counted {counted}; "
              f"p50 {asked['p50']:.2f} ms, p99 {asked['p99']:.2f} ms, max {asked['max']:.1f} ms")
        fine &= asked["refused"] == asked["asked"] == counted
sys.exit(not fine)
PY
