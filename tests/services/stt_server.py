"""The recogniser: `stt_server.py PORT` hears real words with pocketsphinx, offline.

POST /stt takes audio/wav (PCM16 or μ-law; 8 or 16 kHz) or audio/basic (raw μ-law) and answers
{"text", "ms"}; nothing understood is an empty text. The grammar is e2e.gram. GET /log lists what was
heard. The model wants 16 kHz, so telephone audio is interpolated to twice its rate.
"""

import os
import struct
import sys
import threading
import time

import numpy as np
from pocketsphinx import Config, Decoder, get_model_path

from loopback import Log, Refused, Service, serve

GRAMMAR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "e2e.gram")
RATE = 16_000
SILENCE_BEFORE = np.zeros(RATE * 3 // 10, np.int16)
SILENCE_AFTER = np.zeros(RATE // 2, np.int16)


def _ulaw_table():
    code = ~np.arange(256) & 0xFF
    magnitude = ((((code & 15) << 3) + 132) << ((code >> 4) & 7)) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


ULAW = _ulaw_table()


def from_ulaw(data):
    return ULAW[np.frombuffer(data, np.uint8)]


def from_pcm16(data):
    return np.frombuffer(data[: len(data) & ~1], "<i2")


def from_wav(data):
    """The samples and the rate. A `data` chunk of unknown length reaches to the end."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise Refused(400, "not a WAV file")
    form, at = None, 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        chunk = data[at + 8 : at + 8 + size]
        if name == b"fmt ":
            form = struct.unpack_from("<HHIIHH", chunk)
        elif name == b"data" and form:
            encoding, channels, rate, _, _, bits = form
            if channels == 1 and (encoding, bits) == (1, 16):
                return from_pcm16(chunk), rate
            if channels == 1 and (encoding, bits) == (7, 8):
                return from_ulaw(chunk), rate
            raise Refused(415, f"WAV encoding {encoding}, {bits} bits, {channels} channels")
        at += 8 + size + size % 2
    raise Refused(400, "a WAV file without fmt or data")


def samples(content_type, body):
    kind = content_type.split(";")[0].strip().lower()
    if kind in ("audio/wav", "audio/x-wav", "audio/wave"):
        return from_wav(body)
    if kind in ("audio/basic", "audio/x-mulaw"):
        return from_ulaw(body), 8_000
    raise Refused(415, f"send audio/wav or audio/basic, not {content_type or 'no type'}")


def to_model_rate(pcm, rate):
    if rate == RATE:
        return pcm
    if rate * 2 != RATE:
        raise Refused(415, f"{rate} Hz; send 8000 or 16000")
    wide = np.empty(len(pcm) * 2, np.int16)
    before = np.concatenate(([0], pcm[:-1])).astype(np.int32)
    wide[0::2] = (before + pcm) // 2
    wide[1::2] = pcm
    return wide


class Recogniser:
    """One warm decoder. A second would gain nothing: pocketsphinx holds Python's lock at work."""

    def __init__(self):
        self._lock = threading.Lock()
        self._decoder = Decoder(
            Config(
                hmm=get_model_path("en-us/en-us"),
                dict=get_model_path("en-us/cmudict-en-us.dict"),
                jsgf=GRAMMAR,
                lm=None,
                loglevel="FATAL",
            )
        )

    def text(self, pcm):
        # The whole utterance at once: levels are then normalised over it alone, and the answer does
        # not depend on what was heard before.
        padded = np.concatenate((SILENCE_BEFORE, pcm, SILENCE_AFTER)).tobytes()
        with self._lock:
            self._decoder.start_utt()
            self._decoder.process_raw(padded, no_search=False, full_utt=True)
            self._decoder.end_utt()
            best = self._decoder.hyp()
        return best.hypstr if best else ""


class Stt(Service):
    log = Log()
    recogniser = None

    def post(self, path, query, body):
        if path != "/stt":
            raise Refused(404, f"no such path: {path}")
        started = time.perf_counter()
        content_type = self.headers.get("Content-Type", "")
        pcm, rate = samples(content_type, body)
        text = self.recogniser.text(to_model_rate(pcm, rate)) if len(pcm) else ""
        ms = round((time.perf_counter() - started) * 1000, 1)
        self.log.add(
            bytes=len(body),
            seconds=len(pcm) / rate,
            rate=rate,
            content_type=content_type,
            query=query,
            headers={name.lower(): value for name, value in self.headers.items()},
            text=text,
            ms=ms,
        )
        self.answer_json(200, {"text": text, "ms": ms})


if __name__ == "__main__":
    Stt.recogniser = Recogniser()
    serve(Stt, int(sys.argv[1]))
