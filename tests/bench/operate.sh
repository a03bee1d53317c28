#!/usr/bin/env bash
# Nothing is lost while a gateway is operated: live calls and a stream of HTTP requests go through reloads,
# upgrades and a SIGTERM. operate.sh [CALLS] [RELOADS] [UPGRADES] [SECONDS]; SECONDS is how long the calls last
# that go through all of it. Exit status 0 if no call and no request was lost.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
voxgate="${VOXGATE:-${CARGO_TARGET_DIR:-target}/release/voxgate}"
[ -x "$voxgate" ] || { echo "build it first: cargo build --release" >&2; exit 2; }
calls="${1:-200}" reloads="${2:-20}" upgrades="${3:-5}" seconds="${4:-120}"
ulimit -n 8192
port=9311
folder="$(mktemp -d)"
end() {
  kill $(jobs -p) 2>/dev/null || true
  # By now their numbers may be somebody else's.
  for pid in $(pids 2>/dev/null); do
    if grep -qs "$config" "/proc/$pid/cmdline"; then kill -KILL "$pid" 2>/dev/null || true; fi
  done
  if [ -n "${KEEP:-}" ]; then echo "kept: $folder"; else rm -rf "$folder"; fi
}
trap end EXIT

config="$folder/gateway.toml" log="$folder/log"
cat >"$config" <<TOML
[server]
listen = "127.0.0.1:$port"
[admin]
listen = "127.0.0.1:$((port + 1))"
[log]
format = "json"
[turn]
eou_ms = 450
[upstreams.app]
servers = ["127.0.0.1:$((port + 2))"]
TOML
pids() { sed -n 's/.*"message":"STARTED".*"pid":\([0-9]*\).*/\1/p' "$log"; }
count() { grep -c "\"message\":\"$1\"" "$log" || true; }
# How often an event must have been logged before things go on.
until_logged() {
  for _ in $(seq 600); do
    [ "$(count "$1")" -lt "$2" ] || return 0
    sleep 0.1
  done
  echo "waited in vain for $1" >&2
  exit 1
}

url="ws://127.0.0.1:$port/ws/twilio-media"
(cd tests/services && exec ../../.venv/bin/gunicorn -c gunicorn.conf.py -k gthread --threads 16 -w 1 \
  -b "127.0.0.1:$((port + 2))" legacy_app:app >/dev/null 2>&1) &
curl -sf --retry 100 --retry-delay 1 --retry-max-time 60 --retry-connrefused "http://127.0.0.1:$((port + 2))/" \
  >/dev/null
"$voxgate" run --config "$config" 2>"$log" &
until_logged STARTED 1
until curl -sf "http://127.0.0.1:$port/healthz" >/dev/null; do sleep 0.1; done

.venv/bin/python tests/bench/visitors.py "$port" >"$folder/requests.json" &
visitors=$!
# Those that live through everything, and others that come and go all the while.
"$voxgate" call "$url" --calls "$calls" --duration "${seconds}s" --json >"$folder/calls-long.json" &
(
  for n in $(seq 10000); do
    [ ! -e "$folder/enough" ] || exit 0
    "$voxgate" call "$url" --calls 10 --duration 3s --json >"$folder/calls-short-$n.json" || true
  done
) &
short=$!
until [ "$(count WS_START)" -ge "$calls" ]; do sleep 0.1; done
begun=$SECONDS

reloaded=0
reload() {
  [ "$reloaded" -lt "$reloads" ] || return 0
  reloaded=$((reloaded + 1))
  sed -i "s/^eou_ms = .*/eou_ms = $((400 + reloaded * 5))/" "$config"
  "$voxgate" reload --config "$config" >>"$folder/operations"
}
for upgrade in $(seq "$upgrades"); do
  while [ "$reloaded" -lt $((reloads * upgrade / upgrades - 1)) ]; do reload; sleep 0.2; done
  "$voxgate" upgrade --config "$config" >>"$folder/operations"
  # The new process is asked, while the old one is still on its way out.
  reload
  until_logged DRAIN_START "$upgrade"
done
while [ "$reloaded" -lt "$reloads" ]; do reload; done
live=$(curl -sf "http://127.0.0.1:$((port + 1))/metrics" | sed -n 's/^voxgate_calls_active //p')
# A few more for the process that is stopped: its drain has to wait for them.
touch "$folder/enough"
wait "$short"
before=$(count WS_START)
"$voxgate" call "$url" --calls 20 --duration 10s --json >"$folder/calls-last.json" &
last_calls=$!
until [ "$(count WS_START)" -ge $((before + 20)) ]; do sleep 0.1; done
last=$(pids | tail -1)
stopped=$SECONDS
kill -TERM "$last"
until_logged DRAIN_START $((upgrades + 1))
sleep 3
# Whoever is in front stops asking while the gateway drains.
kill -INT "$visitors"
wait "$visitors" || true
wait "$last_calls" || true
while kill -0 "$last" 2>/dev/null; do sleep 0.1; done
drained=$((SECONDS - stopped))
until_logged DRAIN_END $((upgrades + 1))

echo "reloads: $reloaded, upgrades: $upgrades, in $((stopped - begun)) s; SIGTERM: drained in $drained s ($live calls of the last process before it)"
.venv/bin/python - "$folder" "$(grep -c . "$folder/operations")" <<'PY'
import glob, json, sys

folder, operations = sys.argv[1], sys.argv[2]
calls = [json.load(open(name)) for name in glob.glob(f"{folder}/calls-*.json")]
begun, served = (sum(crowd[key] for crowd in calls) for key in ("calls", "served"))
requests = json.load(open(f"{folder}/requests.json"))
print(f"operations answered: {operations}")
print(f"calls: {begun}, lost: {begun - served}")
print(f"requests: {requests['requests']}, failed: {requests['failed']}", requests["kinds"])
for crowd in calls:
    for problem in crowd["problems"]:
        print("call:", problem)
for why in requests["why"]:
    print("request:", why)
sys.exit(begun != served or requests["failed"] > 0 or requests["requests"] == 0)
PY
