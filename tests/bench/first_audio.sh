#!/usr/bin/env bash
# How soon the caller hears an answer when the services take no time: first_audio.sh [CALLS] [DURATION].
# The figure is `reply` of `voxgate call`: from the caller's last voiced frame to the first frame of the
# reply. Of it, [turn] eou_ms (450) is the silence that ends an utterance.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
voxgate="${VOXGATE:-${CARGO_TARGET_DIR:-target}/release/voxgate}"
[ -x "$voxgate" ] || { echo "build it first: cargo build --release" >&2; exit 2; }
port=9301
folder="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT

cat >"$folder/gateway.toml" <<TOML
[server]
listen = "127.0.0.1:$((port + 1))"
[admin]
listen = "127.0.0.1:$((port + 2))"
[turn]
dedup_window_sec = 0
[dialogue]
mode = "dialogue"
[dialogue.stt]
url = "http://127.0.0.1:$port/stt"
[dialogue.agent]
url = "http://127.0.0.1:$port/agent"
[dialogue.tts]
url = "http://127.0.0.1:$port/tts"
TOML
.venv/bin/python tests/services/instant.py "$port" >"$folder/ready" &
until grep -q ready "$folder/ready"; do sleep 0.1; done
"$voxgate" run --config "$folder/gateway.toml" 2>"$folder/log" &
until grep -q PHRASE_RENDERED "$folder/log"; do sleep 0.1; done
"$voxgate" call "ws://127.0.0.1:$((port + 1))/ws/twilio-media" --calls "${1:-10}" --duration "${2:-60s}"
# Where the time went, on average.
curl -sf "http://127.0.0.1:$((port + 2))/metrics" | awk -F'[{}" ]+' '
  /^voxgate_turn_stage_seconds_sum/ { sum[$3] = $NF }
  /^voxgate_turn_stage_seconds_count/ { count[$3] = $NF }
  END { for (stage in sum) if (count[stage]) printf "%-12s %7.1f ms\n", stage, 1000 * sum[stage] / count[stage] }'
