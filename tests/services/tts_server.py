"""The voice: `tts_server.py PORT` speaks with real engines, offline, in the formats services return.

POST /tts takes {"text", "voice"?} and streams audio. The default is espeak-ng untouched: a WAV of
22,050 Hz whose head claims an absurd length, as it does when written to a pipe. ?format= asks for
another (see FORMATS; those WAVs have true heads), ?rate= is for pcm16, and ?chunk= and ?pace_ms= say
how it trickles. GET /log lists what was spoken.
"""

import functools
import json
import subprocess
import sys
import tempfile
import time

from loopback import Log, Refused, Service, serve

FLITE_VOICES = {"awb", "kal", "kal16", "rms", "slt"}

# name → (content type, what sox is told; nothing where the engine's own output is wanted)
FORMATS = {
    "wav22": ("audio/wav", []),
    "wav16": ("audio/wav", "-t wav -r 16000 -c 1 -b 16 -e signed".split()),
    "wav8": ("audio/wav", "-t wav -r 8000 -c 1 -b 16 -e signed".split()),
    "wav44stereo": ("audio/wav", "-t wav -r 44100 -c 2 -b 16 -e signed".split()),
    "wavmulaw": ("audio/wav", "-t wav -r 8000 -c 1 -b 8 -e mu-law".split()),
    "mulaw": ("audio/basic", "-t raw -r 8000 -c 1 -b 8 -e mu-law".split()),
    "pcm16": ("audio/pcm;rate={rate}", "-t raw -r {rate} -c 1 -b 16 -e signed -L".split()),
}


def run(command, data):
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


@functools.lru_cache(maxsize=512)
def engine(text, voice):
    """The WAV that the engine itself writes: espeak-ng at 22,050 Hz, flite at 16,000 (kal: 8,000)."""
    if voice in FLITE_VOICES:
        return run(["flite", "-voice", voice, "-t", text, "-o", "/dev/stdout"], b"")
    return run(["espeak-ng", "-v", voice, "--stdin", "--stdout"], text.encode())


@functools.lru_cache(maxsize=512)
def speech(text, voice, name, rate):
    wav = engine(text, voice)
    if not (convert := FORMATS[name][1]):
        return wav
    options = [option.format(rate=rate) for option in convert]
    with tempfile.NamedTemporaryFile() as out:  # to a file, so that a WAV's length comes out true
        run(["sox", "-D", "-V1", "--ignore-length", "-t", "wav", "-", *options, out.name], wav)
        return out.read()


class Tts(Service):
    log = Log()

    def post(self, path, query, body):
        if path != "/tts":
            raise Refused(404, f"no such path: {path}")
        started = time.perf_counter()
        try:
            asked = json.loads(body)
            text, voice = asked["text"], asked.get("voice") or "en-us"
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Refused(400, 'send {"text": …, "voice"?: …}') from None
        name, rate = query.get("format", "wav22"), int(query.get("rate", 16_000))
        if name not in FORMATS:
            raise Refused(400, f"no such format: {name}; there are {', '.join(FORMATS)}")
        try:
            audio = speech(text, voice, name, rate)
        except subprocess.CalledProcessError as failed:
            raise Refused(500, failed.stderr.decode(errors="replace").strip()) from None
        self.log.add(
            text=text,
            voice=voice,
            format=name,
            query=query,
            headers={name.lower(): value for name, value in self.headers.items()},
            bytes=len(audio),
            ms=round((time.perf_counter() - started) * 1000, 1),
        )
        self.answer_stream(
            FORMATS[name][0].format(rate=rate),
            paced(audio, int(query.get("chunk", 4_096)), int(query.get("pace_ms", 0))),
        )


def paced(audio, size, pace_ms):
    for at in range(0, len(audio), size):
        if at and pace_ms:
            time.sleep(pace_ms / 1000)
        yield audio[at : at + size]


if __name__ == "__main__":
    engine("ready", "en-us")
    serve(Tts, int(sys.argv[1]))
