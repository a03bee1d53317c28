#!/usr/bin/env bash
# wscat without a terminal: wscat.sh URL [wscat options] connects, sends Twilio's first message,
# waits a second and prints what came. Ends with wscat's own exit status.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec node_modules/.bin/wscat --no-color -c "$1" "${@:2}" \
  -x '{"event":"connected","protocol":"Call","version":"1.0.0"}' -w 1 </dev/null
