#!/usr/bin/env bash
# Instructions that one frame of 20 ms costs inside the process, by valgrind's callgrind: the same figure again
# and again, whatever else the machine is doing. instructions.sh [--limit] fails where a kind costs more than is
# written here, which is what it cost when this was written and a tenth more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
declare -A limit=([quiet]=5510 [speech]=159600 [rms]=6060 [out]=3710)
program="$(cargo bench --locked --bench frame --no-run --message-format json 2>/dev/null |
  sed -n 's/.*"kind":\["bench"\],.*"name":"frame".*"executable":"\([^"]*\)".*/\1/p')"
count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" --only "$1" "$2" 2>&1 |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
. tests/bench/each.sh
each frame 1000 3000 quiet speech rms out
[ "${1:-}" != --limit ] || exit "$over"
