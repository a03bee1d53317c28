"""Three vendors in one server: `vendors.py PORT` is strict about what OpenAI, ElevenLabs and Deepgram
document of their request/response speech APIs, each at its own path and with errors of its own shape.

What is spoken comes from flite and espeak-ng, what is heard goes to pocketsphinx. A request that a
vendor would refuse is refused here, and so is whatever its reference does not name. Which account
asks decides by the key: `PREFIX-test` is in order, `PREFIX-limited` asks too often, `PREFIX-broke` has
no credit, `PREFIX-down` meets a vendor that is out of order. GET /log lists every request.
"""

import sys
import time
from urllib.parse import parse_qsl, urlsplit

import deepgram_api
import elevenlabs_api
import openai_api
from loopback import Log, Service, serve
from stt_server import Recogniser
from tts_server import engine, paced
from vendor import Refusal, Speech

VENDORS = (openai_api, elevenlabs_api, deepgram_api)


class Vendors(Service):
    log = Log()
    recogniser = None

    def do_POST(self):
        url = urlsplit(self.path)
        query = parse_qsl(url.query, keep_blank_values=True)
        body = self.read_body()
        entry = {
            "path": url.path,
            "query": query,
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }
        started = time.perf_counter()
        try:
            vendor = next((vendor for vendor in VENDORS if vendor.answers(url.path)), None)
            if vendor is None:
                raise Refusal(404, {"error": f"no vendor answers at {url.path}"})
            answer = vendor.answer(url.path, query, self.headers, body, self.recogniser)
        except Refusal as refusal:
            self.log.add(**entry, status=refusal.status, said=refusal.body)
            self.answer_refusal(refusal)
            return
        ms = round((time.perf_counter() - started) * 1000, 1)
        if isinstance(answer, Speech):
            self.log.add(
                **entry,
                status=200,
                text=answer.text,
                asked=answer.asked,
                bytes=len(answer.audio),
                ms=ms,
            )
            self.answer_stream(answer.content_type, paced(answer.audio, 4_096, 0))
        else:
            self.log.add(**entry, status=200, asked=answer.pop("asked"), text=answer["text"], ms=ms)
            self.answer_json(200, answer)

    def answer_refusal(self, refusal):
        self.extra = refusal.headers
        try:
            self.answer_json(refusal.status, refusal.body)
        finally:
            self.extra = {}

    extra = {}

    def end_headers(self):
        for name, value in self.extra.items():
            self.send_header(name, value)
        super().end_headers()


if __name__ == "__main__":
    Vendors.recogniser = Recogniser()
    engine("ready", "rms")
    serve(Vendors, int(sys.argv[1]))
