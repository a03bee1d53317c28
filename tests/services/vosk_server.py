"""A Vosk server: `vosk_server.py PORT` speaks its WebSocket protocol: a configuration if there is one,
16-bit PCM, one answer to each message of audio, and the last words at `eof`. GET /log lists the
connections, GET /break breaks those that there are.
"""

import asyncio
import json
import sys
from urllib.parse import urlsplit

import numpy as np
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from ears import RATE, Ears, Model
from parent_watch import end_with_parent
from stt_server import from_pcm16

EOF = '{"eof" : 1}'  # compared letter by letter
SILENCE = RATE // 2
KNOWN = {"sample_rate", "phrase_list", "words", "max_alternatives"}


class Listening:
    """One connection."""

    def __init__(self, ws, model):
        self.ws, self.model = ws, model
        self.entry = {"bytes": 0, "configs": [], "finals": [], "eof": False,
                      "traceparent": ws.request.headers.get("traceparent")}
        self.ears = None

    def configure(self, message):
        asked = json.loads(message)["config"]
        if self.ears or not KNOWN.issuperset(asked) or float(asked["sample_rate"]) != RATE:
            raise ValueError(f"not what this server takes: {asked}")
        self.entry["configs"].append(asked)

    async def run(self):
        guess = ""
        while True:
            message = await self.ws.recv()
            if isinstance(message, str) and "config" in message:
                self.configure(message)
                continue
            self.ears = self.ears or Ears(self.model, SILENCE)
            if message == EOF:
                self.entry["eof"] = True
                return await self.final(self.ears.settle()[0])
            if isinstance(message, str):
                raise ValueError(f"text that is no audio: {message}")
            self.entry["bytes"] += len(message)
            final = None
            for kind, text, _, _ in self.ears.hear(from_pcm16(message)):
                if kind == "end":
                    final, guess = " ".join(filter(None, (final, text))), ""
                else:
                    guess = text
            if final is None:
                await self.ws.send(json.dumps({"partial": guess}))
            else:
                await self.final(final)

    async def final(self, text):
        if text:
            self.entry["finals"].append(text)
        await self.ws.send(json.dumps({"result": [{"word": word, "conf": 1.0} for word in text.split()], "text": text}))


async def main(port):
    model = Model()
    model.guess(np.zeros(RATE, np.int16))
    log, live = [], set()

    def dispatch(ws, request):
        path = urlsplit(request.path).path
        if path == "/log":
            return ws.respond(200, json.dumps(log))
        if path == "/break":
            for other in list(live):
                other.transport.abort()
            return ws.respond(200, json.dumps(len(live)))
        return None

    async def listen(ws):
        listening = Listening(ws, model)
        log.append(listening.entry)
        live.add(ws)
        try:
            await listening.run()
        except ConnectionClosed:
            pass
        finally:
            live.discard(ws)

    async with serve(listen, "127.0.0.1", port, process_request=dispatch, compression=None):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(main(int(sys.argv[1])))
