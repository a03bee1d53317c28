#!/usr/bin/env bash
# Makes the files of this folder, which the tests of src/audio/encoded read. They are committed, so
# that no test needs an encoder; this is how they came to be, with Debian 12's sox, lame 3.100,
# vorbis-tools, flac, opus-tools and ffmpeg. Encoders change: tests may need other bounds afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# A sine from 200 to 3200 Hz in 0.6 s, peak 8000; on a second channel at half of that.
sweep() { # rate channels
  sox -D -R -n -r "$1" -b 16 -c 1 "$work/one.wav" synth 0.6 sine 200:3200 vol 0.244140625
  if [ "$2" = 1 ]; then cp "$work/one.wav" "$work/$1-$2.wav"; else
    sox -D -M -v 1 "$work/one.wav" -v 0.5 "$work/one.wav" "$work/$1-$2.wav"
  fi
}
# The first second of the shipped apology, which is speech.
speech() { # rate
  sox -D -t raw -e u-law -b 8 -r 8000 -c 1 ../../src/audio/apology.ulaw -b 16 -r "$1" "$work/speech-$1.wav" trim 0 1
}
sweep 8000 1; sweep 16000 1; sweep 24000 1; sweep 44100 1; sweep 44100 2
speech 24000

lame --quiet -m m -b 24 --resample 8 "$work/8000-1.wav" sweep-8k-mono-24.mp3
lame --quiet -m m -b 32 --resample 16 "$work/16000-1.wav" sweep-16k-mono-32.mp3
lame --quiet -m m -b 64 --resample 24 "$work/24000-1.wav" sweep-24k-mono-64.mp3
lame --quiet -m m -V 4 --resample 44.1 "$work/44100-1.wav" sweep-44k-mono-vbr.mp3
lame --quiet -m j -b 128 --resample 44.1 "$work/44100-2.wav" sweep-44k-joint-128.mp3
lame --quiet -m m -b 64 --resample 24 "$work/speech-24000.wav" speech-24k-mono-64.mp3
oggenc -Q -q 3 --serial 1 "$work/24000-1.wav" -o sweep-24k-mono.ogg
oggenc -Q -q 3 --serial 2 "$work/44100-2.wav" -o sweep-44k-stereo.ogg
flac -s -f --no-padding -8 "$work/16000-1.wav" -o sweep-16k-mono.flac
sox -D "$work/44100-2.wav" "$work/short.wav" trim 0 0.2
flac -s -f --no-padding -5 -b 1024 "$work/short.wav" -o sweep-44k-stereo.flac
sox -D "$work/24000-1.wav" "$work/tiny.wav" trim 0 0.1
opusenc --quiet --serial 3 "$work/tiny.wav" tiny.opus
ffmpeg -loglevel error -y -i "$work/tiny.wav" -b:a 32k tiny.mp2
