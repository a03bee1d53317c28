"""Deepgram's live recognition: `deepgram_server.py PORT [CERTIFICATE KEY]` serves GET /v1/listen,
over TLS where there is a certificate, written from its reference and as strict: a wrong key, query or message is refused as Deepgram refuses it, and so is
silence. GET /log lists the connections, GET /break breaks those that there are.
"""

import asyncio
import json
import ssl
import sys
import uuid
from datetime import datetime, timezone
from urllib.parse import parse_qs, urlsplit

import numpy as np
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from deepgram_api import account
from ears import RATE, Ears, Model
from parent_watch import end_with_parent
from stt_server import from_pcm16, from_ulaw
from vendor import Refusal

PATIENCE = 10  # seconds without audio or KeepAlive: NET-0001
INTERIM_EVERY = 1  # seconds of audio without speech between two empty results
BOOLS = {"interim_results", "smart_format", "punctuate", "vad_events"}
ONCE = BOOLS | {
    "model", "language", "encoding", "sample_rate", "channels", "endpointing", "utterance_end_ms", "tag"
}  # fmt: skip


class Misfit(Exception):
    pass


def options(query):
    """What the query asks for."""
    asked = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    for name, values in asked.items():
        if name not in ONCE | {"keyterm"}:
            raise Misfit(f"unknown parameter {name}")
        if name in ONCE and len(values) > 1:
            raise Misfit(f"{name} came more than once")
    one = {name: values[0] for name, values in asked.items() if name in ONCE}
    for name in BOOLS & one.keys():
        if one[name] not in ("true", "false"):
            raise Misfit(f"{name} is neither true nor false")
    if not one.get("model", "").startswith("nova-"):
        raise Misfit("No such model/language/tier combination found.")
    if "keyterm" in asked and not one["model"].startswith("nova-3"):
        raise Misfit("keyterm is for nova-3")
    if one.get("encoding") not in ("mulaw", "linear16"):
        raise Misfit("encoding is not one of those that this fake hears")
    if one.get("sample_rate") != str(RATE):
        raise Misfit("sample_rate is wanted with encoding, and is 8000 for a telephone")
    if one.get("channels", "1") != "1":
        raise Misfit("one channel is heard")
    interim = one.get("interim_results") == "true"
    gap = one.get("utterance_end_ms")
    if gap is not None and (not interim or not gap.isdigit() or not 1000 <= int(gap) <= 5000):
        raise Misfit("utterance_end_ms is 1000 to 5000 and goes with interim_results")
    silence = one.get("endpointing", "10")
    if silence != "false" and not silence.isdigit():
        raise Misfit("endpointing is a number or false")
    return {
        "decode": from_ulaw if one["encoding"] == "mulaw" else from_pcm16,
        "interim": interim,
        "gap": int(gap) * RATE // 1000 if gap else None,
        # With less than this a voice of the tests would be cut between its words.
        "silence": None if silence == "false" else max(int(silence), 200) * RATE // 1000,
        "model": one["model"],
    }


class Listening:
    """One connection."""

    def __init__(self, ws, asked, model):
        self.ws, self.asked = ws, asked
        self.ears = Ears(model, asked["silence"])
        self.id = str(uuid.uuid4())
        self.entry = {"query": urlsplit(ws.request.path).query, "bytes": 0, "messages": [], "finals": [],
                      "traceparent": ws.request.headers.get("traceparent")}
        self.told = 0  # the place up to which results have been given
        self.word_end = None  # of words whose utterance has no UtteranceEnd yet

    async def results(self, text, begin, until, is_final=False, speech_final=False, from_finalize=False):
        words = [
            {"word": word, "punctuated_word": word, "start": begin / RATE, "end": until / RATE, "confidence": 1.0}
            for word in text.split()
        ]
        alternative = {"transcript": text, "confidence": 1.0 if text else 0.0, "words": words}
        if is_final:
            # Final results follow one another without a gap.
            begin, self.told = self.told, until
            if text:
                self.entry["finals"].append(text)
                self.word_end = self.ears.last_voice
        await self.send(
            type="Results",
            channel_index=[0, 1],
            start=begin / RATE,
            duration=(until - begin) / RATE,
            is_final=is_final,
            speech_final=speech_final,
            from_finalize=from_finalize,
            channel={"alternatives": [alternative]},
            metadata={
                "request_id": self.id,
                "model_info": {"name": self.asked["model"], "version": "1", "arch": "nova"},
                "model_uuid": self.id,
            },
        )

    async def send(self, **message):
        await self.ws.send(json.dumps(message))

    async def audio(self, data):
        self.entry["bytes"] += len(data)
        quiet = True
        for kind, text, begin, until in self.ears.hear(self.asked["decode"](data)):
            quiet = False
            if kind == "end":
                await self.results(text, begin, until, is_final=True, speech_final=True)
            elif self.asked["interim"]:
                await self.results(text, begin, until)
        heard = self.ears.heard
        if quiet and heard - self.told >= INTERIM_EVERY * RATE and self.ears._speech is None:
            await self.results("", self.told, heard, is_final=True)
        if self.asked["gap"] and self.word_end is not None and heard - self.word_end >= self.asked["gap"]:
            await self.send(type="UtteranceEnd", channel=[0, 1], last_word_end=self.word_end / RATE)
            self.word_end = None

    async def finalize(self):
        if self.ears.heard - self.told < RATE // 20:
            return  # nothing to flush, and then Deepgram says nothing
        await self.results(*self.ears.settle(), is_final=True, from_finalize=True)

    async def run(self):
        while True:
            try:
                message = await asyncio.wait_for(self.ws.recv(), PATIENCE)
            except TimeoutError:
                why = "NET-0001: no audio and no text message came in time"
                return await self.ws.close(1011, why)
            if isinstance(message, bytes):
                if not message:
                    continue
                await self.audio(message)
                continue
            try:
                kind = json.loads(message)["type"]
            except (ValueError, TypeError, KeyError):
                kind = None
            self.entry["messages"].append(kind)
            if kind == "Finalize":
                await self.finalize()
            elif kind == "CloseStream":
                if self.ears.heard > self.told:
                    await self.results(*self.ears.settle(), is_final=True)
                return await self.goodbye()
            elif kind != "KeepAlive":
                return await self.ws.close(1008, "DATA-0000: a text message that is no control message")

    async def goodbye(self):
        await self.send(
            type="Metadata",
            transaction_key="deprecated",
            request_id=self.id,
            sha256="0" * 64,
            created=datetime.now(timezone.utc).isoformat(),
            duration=self.ears.heard / RATE,
            channels=1,
        )
        await self.ws.close(1000)


async def main(port, *certificate):
    model = Model()
    model.guess(np.zeros(RATE, np.int16))
    log, live = [], set()

    def refuse(ws, refusal):
        response = ws.respond(refusal.status, json.dumps(refusal.body))
        response.headers["dg-error"] = refusal.body["err_msg"]
        return response

    def dispatch(ws, request):
        url = urlsplit(request.path)
        if url.path == "/log":
            return ws.respond(200, json.dumps(log))
        if url.path == "/break":
            for other in list(live):
                other.transport.abort()
            return ws.respond(200, json.dumps(len(live)))
        if url.path != "/v1/listen":
            return ws.respond(404, "Not Found")
        try:
            account(request.headers.get("Authorization", ""))
            ws.asked = options(url.query)
        except Refusal as refusal:
            return refuse(ws, refusal)
        except (Misfit, ValueError) as misfit:
            body = {"err_code": "Bad Request", "err_msg": str(misfit), "request_id": str(uuid.uuid4())}
            return refuse(ws, Refusal(400, body))
        return None

    async def listen(ws):
        listening = Listening(ws, ws.asked, model)
        log.append(listening.entry)
        live.add(ws)
        try:
            await listening.run()
        except ConnectionClosed:
            pass
        finally:
            listening.entry["closed"] = ws.close_code
            live.discard(ws)

    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
    how = {"process_request": dispatch, "compression": None, "max_size": 2**20, "ssl": tls}
    async with serve(listen, "127.0.0.1", port, **how):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
