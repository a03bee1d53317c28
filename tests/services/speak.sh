#!/usr/bin/env bash
# The caller's voice: speak.sh TEXT OUT.wav writes TEXT as an 8 kHz mono 16-bit WAV, as a telephone
# would carry it. flite's "rms" is the voice that stt_server.py recognises word for word.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: speak.sh TEXT OUT.wav" >&2; exit 2; }
wide="$(mktemp --suffix=.wav)"
trap 'rm -f "$wide"' EXIT
flite -voice rms -t "$1" -o "$wide"
sox -D "$wide" -r 8000 -c 1 -b 16 "$2"
