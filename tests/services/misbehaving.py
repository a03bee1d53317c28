"""A service that is broken on purpose: `misbehaving.py PORT`; the first part of a path picks the fault,
so that what a vendor's kind puts behind it does not matter.

It stands in for a recogniser, a voice or an agent on its worst day; see FAULTS for what it can do.
GET /log tells of each request how long it stayed open and which side ended it, so that a test can
see that the gateway let go of a service which does not answer.
"""

import asyncio
import itertools
import json
import random
import socket
import struct
import sys
import time
from urllib.parse import parse_qsl, urlsplit

from parent_watch import end_with_parent

LOG = []


def wav_head(seconds=None, rate=8_000):
    """A PCM16 mono head; without a length it claims as much as can be claimed."""
    size = 0x7FFFF000 if seconds is None else int(seconds * rate) * 2
    return (
        struct.pack("<4sI4s4sIHHIIHH", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
        + struct.pack("<4sI", b"data", size)
    )  # fmt: skip


class Exchange:
    """One request, and the ways to answer it wrongly."""

    def __init__(self, writer, query):
        self.writer, self.query = writer, query

    async def write(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, content_type, length=None, status="200 OK"):
        """Without a length the body goes on until the connection ends."""
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", "Connection: close"]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        await self.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def whole(self, content_type, body, status="200 OK"):
        await self.head(content_type, len(body), status)
        await self.write(body)


async def hang(ex):
    """Takes the request and never answers."""
    await asyncio.Event().wait()


async def slow_headers(ex):
    """Answers 200 at once, then a header line each second and never the end of the head."""
    await ex.write(b"HTTP/1.1 200 OK\r\n")
    for number in itertools.count():
        await ex.write(f"X-Wait-{number}: a little longer\r\n".encode())
        await asyncio.sleep(1)


async def error_500(ex):
    await ex.whole("text/plain", b"Internal Server Error", "500 Internal Server Error")


async def html(ex):
    """200, and a page for people."""
    await ex.whole("text/html", b"<html><body><h1>502 Bad Gateway</h1></body></html>")


async def json_error(ex):
    """200, and an error in JSON where audio or a transcript is wanted."""
    await ex.whole("application/json", b'{"error":{"code":"quota_exceeded","message":"No credit"}}')


async def wav_silence(ex):
    """Two seconds of nothing, well formed."""
    await ex.whole("audio/wav", wav_head(2) + bytes(2 * 8_000 * 2))


async def wav_header_hang(ex):
    """The head of a WAV, and then no sound."""
    await ex.head("audio/wav")
    await ex.write(wav_head())
    await asyncio.Event().wait()


async def trickle(ex):
    """A byte a second: of a WAV, or with ?as=text of a reply, or with ?as=json of a transcript."""
    content_type, body = {
        "text": ("text/plain", itertools.cycle(b"I am thinking about it. ")),
        "json": ("application/json", itertools.chain(b'{"text":"', itertools.repeat(ord("a")))),
    }.get(ex.query.get("as"), ("audio/wav", itertools.chain(wav_head(), itertools.repeat(0))))
    await ex.head(content_type)
    for byte in body:
        await ex.write(bytes([byte]))
        await asyncio.sleep(1)


async def reset(ex):
    """A reset connection in the middle of a sound; with ?as=head before any answer."""
    if ex.query.get("as") != "head":
        await ex.head("audio/wav", 44 + 32_000)
        await ex.write(wav_head(2) + bytes(8_000))
        await asyncio.sleep(0.1)
    raw = ex.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ex.writer.transport.abort()


async def short(ex):
    """Promises more than it sends, then closes politely."""
    await ex.head("audio/wav", 44 + 32_000)
    await ex.write(wav_head(2) + bytes(8_000))


async def empty(ex):
    """200 and no body; the type is ?as=, or audio/wav."""
    await ex.whole(ex.query.get("as", "audio/wav"), b"")


async def garbage(ex):
    """Random bytes that claim to be a WAV; the same ones each time."""
    await ex.whole("audio/wav", random.Random(1).randbytes(32_000))


async def mp3(ex):
    """An ID3 tag and frames of MPEG layer III at 44,100 Hz, claimed as they are."""
    frame = bytes.fromhex("fffb9000") + bytes(413)
    await ex.whole("audio/mpeg", b"ID3\x04\0\0\0\0\0\0" + frame * 40)


async def huge(ex):
    """A body without end, as fast as it is read: a WAV, or with ?as=text or json the like."""
    content_type, start, rest = {
        "text": ("text/plain", b"", b"And another thing. "),
        "json": ("application/json", b'{"text":"', b"and "),
    }.get(ex.query.get("as"), ("audio/wav", wav_head(), b"\0\x10\0\xf0"))
    await ex.head(content_type)
    await ex.write(start)
    block = rest * (64 * 1024 // len(rest))
    while True:
        await ex.write(block)


async def log(ex):
    await ex.whole("application/json", json.dumps(LOG).encode())


async def healthz(ex):
    await ex.whole("text/plain", b"ok")


FAULTS = {
    "/hang": hang,
    "/slow-headers": slow_headers,
    "/500": error_500,
    "/html": html,
    "/json": json_error,
    "/wav-silence": wav_silence,
    "/wav-header-hang": wav_header_hang,
    "/trickle": trickle,
    "/reset": reset,
    "/short": short,
    "/empty": empty,
    "/garbage": garbage,
    "/mp3": mp3,
    "/huge": huge,
}


async def read_request(reader):
    """The path, the query and the length of the body, which is read and dropped."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = 0
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
            length += size
        await reader.readline()
    else:
        length = int(headers.get("content-length", 0))
        await reader.readexactly(length)
    url = urlsplit(request_line.split(" ")[1])
    return "/" + url.path.split("/")[1], dict(parse_qsl(url.query)), length


async def hung_up(reader):
    """Ends when the client has gone; most faults write too little to notice it themselves."""
    try:
        while await reader.read(64 * 1024):
            pass
    except ConnectionError:
        pass


async def serve(reader, writer):
    """One connection, one request."""
    try:
        path, query, length = await read_request(reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
        return
    entry = {"at": time.time(), "path": path, "bytes": length, "open_ms": None, "ended_by": None}
    if path in FAULTS:
        LOG.append(entry)
    started = time.monotonic()
    answering = asyncio.ensure_future(answer(path, Exchange(writer, query)))
    gone = asyncio.ensure_future(hung_up(reader))
    await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
    by_client = not answering.done() or isinstance(answering.exception(), ConnectionError)
    entry["ended_by"] = "client" if by_client else "server"
    entry["open_ms"] = round((time.monotonic() - started) * 1000)
    answering.cancel()
    gone.cancel()
    writer.close()


async def answer(path, ex):
    fault = FAULTS.get(path) or {"/log": log, "/healthz": healthz}.get(path)
    if fault is None:
        await ex.whole("text/plain", f"no such fault: {path}".encode(), "404 Not Found")
    else:
        await fault(ex)


async def main(port):
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=256)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(main(int(sys.argv[1])))
