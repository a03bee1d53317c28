#!/usr/bin/env bash
# wscat without a terminal: `wscat.sh URL [wscat options]` connects, sends Twilio's first message,
# prints what comes within a second and closes. Exits 0 only if the handshake succeeded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# wscat leaves, content, as soon as its input ends; a pipe open at both ends never does.
pipe="$(mktemp -u)"
mkfifo "$pipe"
exec 0<>"$pipe"
rm "$pipe"
exec node_modules/.bin/wscat --no-color -c "$1" "${@:2}" \
  -x '{"event":"connected","protocol":"Call","version":"1.0.0"}' -w 1
