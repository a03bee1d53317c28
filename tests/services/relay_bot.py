"""A bot as people wrote it for Twilio: a WebSocket server that takes the carrier's messages and plays
audio in its own manner. The path says in which: /burst sends two seconds at once in odd pieces, with a
mark behind; /wav sends a file in pieces, header included; /binary sends raw binary frames; /clear takes
back what it said; /goodbye speaks and closes; /leaves closes without a word; /dies breaks off; /garbage sends what is no message of the
protocol, and half a second of audio with it; /flood sends half an hour and takes it back; /deaf reads no
more, and speaks after three seconds. What it was told is at GET /log, one JSON list, each entry with the
path and the events in their order (runs of the same event as one)."""

import asyncio
import base64
import json
import math
import struct
import sys

import websockets
from websockets.asyncio.server import serve

from parent_watch import end_with_parent

LOG = []


def encode(sample):
    """One sample of 16 bits as a byte of mu-law (G.711)."""
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), 32635) + 132
    segment = magnitude.bit_length() - 8
    return ~(sign | segment << 4 | magnitude >> segment + 3 & 15) & 0xFF


def tone(seconds):
    return [int(8000 * math.sin(i * 0.3)) for i in range(int(8000 * seconds))]


def mulaw(seconds):
    return bytes(encode(sample) for sample in tone(seconds))


def wav(seconds):
    pcm = struct.pack(f"<{int(8000 * seconds)}h", *tone(seconds))
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 1, 8000,
                       16000, 2, 16, b"data", len(pcm))
    return head + pcm


GARBAGE = [
    "", "null", "[]", "hello", "{", '"media"', "{}", '{"event":7}', '{"event":"media"}',
    '{"event":"media","media":null}', '{"event":"media","media":{}}', '{"event":"media","media":{"payload":""}}',
    '{"event":"media","media":{"payload":"$$$"}}', '{"event":"mark"}', '{"event":"mark","mark":{}}',
    '{"event":"keepalive"}', '{"event":"stop"}', '{"event":"start","start":{}}', b"", "x" * 200_000,
    json.dumps({"event": "mark", "mark": {"name": "y" * 100_000}}),
]  # fmt: skip


async def bot(ws):
    path = ws.request.path
    told = {"path": path, "protocol": ws.subprotocol, "events": [], "marks": [], "start": None,
            "traceparent": ws.request.headers.get("traceparent")}
    LOG.append(told)
    stream, frames = None, 0

    async def play(audio, size):
        for at in range(0, len(audio), size):
            payload = base64.b64encode(audio[at:at + size]).decode()
            # A track that is none of the protocol's business, as many bots send it.
            await ws.send(json.dumps({"event": "media", "streamSid": stream,
                                      "media": {"payload": payload, "track": "outbound"}}))

    async def mark(name):
        await ws.send(json.dumps({"event": "mark", "streamSid": stream, "mark": {"name": name}}))

    async for text in ws:
        message = json.loads(text)
        event = message["event"]
        if told["events"][-1:] != [event]:
            told["events"].append(event)
        if event == "start":
            stream, told["start"] = message["streamSid"], message["start"]
        elif event == "mark":
            told["marks"].append(message["mark"]["name"])
        elif event == "media":
            frames += 1
            if frames == 5 and path == "/burst":
                await play(mulaw(2.0), 1234)
                await mark('done "it"')
            elif frames == 5 and path == "/wav":
                await play(wav(1.0), 777)
                await mark("end")
            elif frames == 5 and path == "/binary":
                await ws.send(mulaw(0.5))
            elif frames == 5 and path == "/clear":
                await play(mulaw(5.0), 160)
                await mark("never")
            elif frames == 50 and path == "/clear":
                await ws.send(json.dumps({"event": "clear", "streamSid": stream}))
            elif frames == 5 and path == "/leaves":
                return
            elif frames == 5 and path == "/goodbye":
                await play(mulaw(1.0), 4000)
                return
            elif frames == 5 and path == "/garbage":
                half = base64.b64encode(mulaw(0.5)).decode()
                for odd in GARBAGE:
                    await ws.send(odd)
                # Fields that nobody asked for, and another stream's id.
                await ws.send(json.dumps({"event": "media", "streamSid": "MZother", "sequenceNumber": 7,
                                          "media": {"payload": half, "timestamp": "x", "chunk": None}}))
                await mark("end")
            elif frames == 5 and path == "/flood":
                for _ in range(30):
                    await play(mulaw(1.0) * 60, 480_000)
                await mark("never")
                await ws.send(json.dumps({"event": "clear", "streamSid": stream}))
                await play(mulaw(0.5), 160)
            elif frames == 5 and path == "/deaf":
                await asyncio.sleep(3)
                await play(mulaw(0.5), 160)
                await asyncio.sleep(60)
            elif frames == 5 and path == "/dies":
                await play(mulaw(5.0), 160)
                ws.transport.abort()


def log(connection, request):
    if request.path == "/log":
        return connection.respond(200, json.dumps(LOG))
    return None


async def main(port):
    end_with_parent()
    pick = ["audio.twilio.com"]
    async with serve(bot, "127.0.0.1", port, process_request=log, subprotocols=pick, compression=None,
                     select_subprotocol=lambda _, offered: next((p for p in pick if p in offered), None)):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1])))
    except (KeyboardInterrupt, websockets.ConnectionClosed):
        pass
