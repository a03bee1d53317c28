#!/usr/bin/env bash
# Calls come and go for a long time, and nothing grows: soak.sh [MINUTES] [CALLS] [SECONDS]; SECONDS is how long a call
# lasts on average, and the shorter, the more of them there are. Four in five talk to a bot whose
# services answer at once, the others hear their echo and are taped; some interrupt, some press keys, one crowd in
# six is cut off in mid-call, and HTTP requests go through beside them. Memory, descriptors and threads are sampled
# every ten seconds. Exit status 0 if memory has no slope over the second half that its own scatter does not explain,
# every call was accounted for, and afterwards the descriptors are those from before.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
voxgate="${VOXGATE:-${CARGO_TARGET_DIR:-target}/release/voxgate}"
[ -x "$voxgate" ] || { echo "build it first: cargo build --release" >&2; exit 2; }
minutes="${1:-60}" calls="${2:-200}" lasting="${3:-40}"
# How many calls one client makes at once.
crowd=10 shortest=$((lasting * 3 / 8)) longest=$((lasting * 13 / 8))
ulimit -n 8192
port=9341
folder="$(mktemp -d)"
end() {
  touch "$folder/enough"
  kill $(jobs -p) 2>/dev/null || true
  if [ -n "${KEEP:-}" ]; then echo "kept: $folder"; else rm -rf "$folder"; fi
}
trap end EXIT

# config NAME PORT: what both gateways have.
config() {
  cat >"$folder/$1.toml" <<TOML
[server]
listen = "127.0.0.1:$2"
[admin]
listen = "127.0.0.1:$(($2 + 1))"
[log]
format = "json"
[upstreams.app]
servers = ["127.0.0.1:$port"]
TOML
  cat >>"$folder/$1.toml"
}
config dialogue $((port + 1)) <<TOML
[turn]
dedup_window_sec = 0
greeting = "Good morning."
[dialogue]
mode = "dialogue"
[dialogue.stt]
url = "http://127.0.0.1:$port/stt"
[dialogue.agent]
url = "http://127.0.0.1:$port/agent"
[dialogue.tts]
url = "http://127.0.0.1:$port/tts"
TOML
config echo $((port + 3)) <<TOML
[recording]
folder = "$folder/tapes"
keep = "5m"
max_mb = 200
TOML
.venv/bin/python tests/services/instant.py "$port" >"$folder/ready" &
until grep -q ready "$folder/ready"; do sleep 0.1; done
declare -A pid at
for mode in dialogue echo; do
  # Huge pages make memory grow by megabytes for the first byte of each.
  MIMALLOC_ALLOW_THP=0 "$voxgate" run --config "$folder/$mode.toml" 2>"$folder/$mode.log" &
  pid[$mode]=$!
done
at[dialogue]=$((port + 1)) at[echo]=$((port + 3))
for mode in dialogue echo; do
  until curl -sf "http://127.0.0.1:${at[$mode]}/healthz" >/dev/null; do sleep 0.1; done
done

# crowds MODE CALLS NUMBER: so many calls one after the other, each time of another kind and length.
crowds() {
  local url="ws://127.0.0.1:${at[$1]}/ws/twilio-media" n=0 kind lasts
  RANDOM=$3
  until [ -e "$folder/enough" ]; do
    n=$((n + 1)) lasts=$((shortest + RANDOM % (longest - shortest)))
    kind=("--ramp" "2s")
    case $((RANDOM % 6)) in
    0) kind+=(--dtmf "12#") ;;
    2) # Everybody at once, in the middle of a word.
      (timeout -s KILL "$lasts" "$voxgate" call "$url" --calls "$2" --duration 10m "${kind[@]}") >/dev/null 2>&1 || true
      continue
      ;;
    esac
    "$voxgate" call "$url" --calls "$2" --duration "${lasts}s" "${kind[@]}" --json \
      >"$folder/calls-$1-$3-$n.json" 2>/dev/null || true
  done
}
# The first calls and requests pay for what is made once.
for mode in dialogue echo; do
  "$voxgate" call "ws://127.0.0.1:${at[$mode]}/ws/twilio-media" --calls 20 --duration 5s >/dev/null
  for _ in 1 2 3 4; do curl -sf "http://127.0.0.1:$((at[$mode] + 1))/metrics" >/dev/null; done
done
sleep 5
(
  until [ -e "$folder/enough" ]; do
    for mode in dialogue echo; do
      curl -s -o /dev/null -o /dev/null -o /dev/null "http://127.0.0.1:${at[$mode]}/"{healthz,no-such-page,log} || true
      curl -s -o /dev/null -d a=b "http://127.0.0.1:${at[$mode]}/form" || true
    done
    sleep 0.5
  done
) &
.venv/bin/python tests/bench/soak.py "$folder" "$minutes" "dialogue=${pid[dialogue]}:${at[dialogue]}" \
  "echo=${pid[echo]}:${at[echo]}" &
judge=$!
number=0
for mode in dialogue echo; do
  [ "$mode" = dialogue ] && share=$((calls * 4 / 5)) || share=$((calls / 5))
  for _ in $(seq $((share / crowd))); do
    number=$((number + 1))
    crowds "$mode" "$crowd" "$number" &
    sleep 0.5
  done
done
wait "$judge"
