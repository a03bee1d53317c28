"""A deployment that is broken in one place: `broken_media.py PORT`, for `voxgate doctor` to judge.

The voice webhook picks the fault: `/webhook/incoming_call?media=silent` answers with TwiML that streams
to /ws/silent, and `?twiml=query` with TwiML that has that fault; everything else is as it should be.
Sockets and frames are written by hand, since no library would do what some of these servers do.
"""

import asyncio
import base64
import hashlib
import json
import struct
import sys
from urllib.parse import parse_qsl, urlsplit

from parent_watch import end_with_parent

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
QUIET = {0xFF, 0x7F}
HELLO = b"\x90\x10" * 4000
GREETS = {"greets": 1.0, "greets_late": 4.0}
WAV = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 8036, b"WAVE", b"fmt ", 16, 7, 1, 8000, 8000, 1, 8, b"data", 8000)


class Stream:
    """A media stream from its handshake on: an echo that can be interrupted, with one thing wrong."""

    def __init__(self, reader, writer, fault):
        self.reader, self.writer, self.fault = reader, writer, fault
        self.sid, self.said, self.quiet, self.reply = "", bytearray(), 0, None

    async def frame(self, opcode, payload):
        head = bytes([0x80 | opcode])
        head += bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack(">H", len(payload))
        self.writer.write(head + payload)
        await self.writer.drain()

    async def send(self, event, **body):
        await self.frame(1, json.dumps({"event": event, "streamSid": self.sid, **body}).encode())

    async def media(self, audio):
        more = {"track": "outbound"} if self.fault == "extra" else {}
        if self.fault == "binary":
            return await self.frame(2, audio)
        await self.send("media", media={"payload": base64.b64encode(audio).decode(), **more})

    async def next(self):
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = struct.unpack(">H", await self.reader.readexactly(2))[0]
        mask = await self.reader.readexactly(4)
        body = await self.reader.readexactly(length)
        return first & 15, bytes(byte ^ mask[n % 4] for n, byte in enumerate(body))

    async def play(self, audio):
        """Each 20 ms a frame, by absolute deadlines."""
        clock = asyncio.get_running_loop().time
        if self.fault == "late":
            await asyncio.sleep(7)
        if self.fault == "wav":
            audio = WAV + audio
        if self.fault == "burst":
            audio = audio * 5
        size = 800 if self.fault == "large" else 160
        pieces = [audio[at : at + size] for at in range(0, len(audio), size)]
        start = clock()
        for number, piece in enumerate(pieces):
            if self.fault == "leaves" and number == 10:
                return await self.frame(8, struct.pack(">H", 1000))
            await self.media(piece)
            due = start + (number + 1) * size / 8000
            if self.fault == "jerky":
                # 200 ms at once, and then nothing for 400 ms.
                due = start + (number + 1) // 10 * 0.4
            if self.fault != "burst":
                await asyncio.sleep(max(0, due - clock()))

    async def greet(self, after):
        """All that it ever says, and not while the caller speaks."""
        await asyncio.sleep(after)
        while self.said:
            await asyncio.sleep(0.02)
        self.reply = asyncio.ensure_future(self.play(HELLO))

    async def hear(self, audio):
        if not QUIET.issuperset(audio):
            self.quiet = 0
            if self.reply and not self.reply.done() and self.fault != "deaf":
                self.reply.cancel()
                await self.send("clear")
            self.said += audio
        elif self.said:
            self.quiet += 1
            if self.quiet == 25:
                said, self.said = bytes(self.said), bytearray()
                if self.fault != "silent" and self.fault not in GREETS:
                    self.reply = asyncio.ensure_future(self.play(said))

    async def run(self):
        if self.fault == "eager":
            self.sid = "MZ0"
            await self.send("mark", mark={"name": "hello"})
        while True:
            opcode, body = await self.next()
            if opcode == 8:
                return await self.frame(8, body)
            if opcode == 9 and self.fault != "no_pong":
                await self.frame(10, body)
            if opcode != 1:
                continue
            message = json.loads(body)
            if message["event"] == "start":
                self.sid = message["streamSid"]
                if self.fault in GREETS:
                    self.greeting = asyncio.ensure_future(self.greet(GREETS[self.fault]))
                if self.fault == "hangs_up":
                    return await self.frame(8, struct.pack(">H", 1011) + b"out of luck")
            elif message["event"] == "media":
                await self.hear(base64.b64decode(message["media"]["payload"]))


def twiml(host, media, fault):
    url, more = f"wss://{host}/ws/{media}", ""
    status = f' statusCallback="https://{host}/webhook/stream_status"'
    parameter, before, after = '<Parameter name="call_sid" value="CA1"/>', "", "<Hangup/>"
    if fault == "scheme":
        url = url.replace("wss", "ws")
    elif fault == "bad_url":
        url = "wss://{{ host }}/ws"
    elif fault == "query":
        url += "?token=1"
    elif fault == "double_slash":
        url = url.replace("/ws/", "//ws/")
    elif fault == "track":
        more = ' track="both_tracks"'
    elif fault == "no_status_callback":
        status = ""
    elif fault == "status_callback":
        status = ' statusCallback="/webhook/stream_status"'
    elif fault == "no_call_sid":
        parameter = ""
    elif fault == "parameter":
        parameter += f'<Parameter name="x" value="{"x" * 600}"/>'
    elif fault == "play":
        before = "<Play>https://example.com/hello.mp3</Play>"
    elif fault == "no_closing_verb":
        after = ""
    elif fault == "pause":
        after = '<Pause length="40"/>'
    elif fault == "too_long":
        after = f"<!--{'x' * 70_000}-->" + after
    stream = f'<Stream url="{url}"{status}{more}>{parameter}</Stream>'
    if fault == "several_streams":
        stream *= 2
    document = f"<Response>{before}<Connect>{stream}</Connect>{after}</Response>"
    if fault == "start":
        document = document.replace("Connect>", "Start>").replace(f"/ws/{media}", "/ws/twilio-media")
    elif fault == "misplaced":
        document = document.replace("<Connect>", "").replace("</Connect>", "")
    elif fault == "case":
        document = document.replace("Connect>", "connect>")
    elif fault == "leading_space":
        document = '\n<?xml version="1.0"?>' + document
    elif fault == "not_xml":
        document = document.replace("</Connect>", "")
    elif fault == "stream":
        document = "<Response><Say>Hello</Say></Response>"
    return document


async def upgrade(reader, writer, path, headers):
    fault = path.removeprefix("/ws/")
    if fault in ("html", "403"):
        status, body = ("200 OK", "<html>Hello</html>") if fault == "html" else ("403 Forbidden", "no")
        return await answer(writer, status, "text/html" if fault == "html" else "text/plain", body)
    accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + GUID).encode()).digest()).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {accept}")
    offered = "audio.twilio.com" in headers.get("sec-websocket-protocol", "")
    if fault == "invents" or (offered and fault != "drops"):
        lines.append("Sec-WebSocket-Protocol: audio.twilio.com")
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    await Stream(reader, writer, fault).run()


async def answer(writer, status, kind, body):
    body = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def serve(reader, writer):
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        url = urlsplit(request_line.split(" ")[1])
        query = dict(parse_qsl(url.query))
        await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("upgrade", "").lower() == "websocket":
            await upgrade(reader, writer, url.path, headers)
        elif url.path == "/version":
            await answer(writer, "200 OK", "application/json", '{"deploy_id": "broken-1"}')
        elif url.path == "/healthz":
            await answer(writer, "200 OK", "text/plain", "ok\n")
        elif url.path == "/webhook/incoming_call":
            document = twiml(headers["host"], query.get("media", "sound"), query.get("twiml"))
            kind = "text/plain" if query.get("twiml") == "plain" else "text/xml"
            await answer(writer, "200 OK", kind, document)
        elif url.path == "/webhook/stream_status":
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        else:
            await answer(writer, "404 Not Found", "text/plain", "nothing here\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(port):
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(main(int(sys.argv[1])))
