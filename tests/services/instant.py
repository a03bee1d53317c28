"""Services that answer at once, so that what is left of a turn's latency is the gateway's own:
`instant.py PORT`. POST /stt hears "hello", POST /agent says one sentence, POST /tts gives a second of a
tone as μ-law. `tests/bench/first_audio.sh` measures with them."""

import math
import sys

from loopback import Service, serve


def mulaw(sample):
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), 32_635) + 132
    segment = magnitude.bit_length() - 8
    return ~(sign | segment << 4 | magnitude >> segment + 3 & 15) & 0xFF


TONE = bytes(mulaw(int(8_000 * math.sin(n * 0.3))) for n in range(8_000))


class Instant(Service):
    def post(self, path, query, body):
        if path == "/stt":
            self.answer_json(200, {"text": "hello"})
        elif path == "/agent":
            self.answer(200, "text/plain", b"Good morning.")
        else:
            self.answer(200, "audio/basic", TONE)


if __name__ == "__main__":
    serve(Instant, int(sys.argv[1]))
