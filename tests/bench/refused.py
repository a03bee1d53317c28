"""Callers for whom there is no place: `refused.py PORT CALLERS SECONDS`. Each asks once a second, as Twilio does: the
voice webhook, and then, whatever it was told, the socket. One JSON object on stdout: how many asked, how many were
refused in the words for it, and how soon."""

import asyncio
import json
import sys
import time

FORM = b"CallSid=CA%d&From=%%2B15550001&CallStatus=ringing"
WEBHOOK = b"POST /webhook/incoming_call HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s"
UPGRADE = b"GET /ws/twilio-media HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"


async def ask(port, request):
    """The answer, and how long it took from the first byte of the connection."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    took = time.monotonic() - begun
    length = int(next((line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0))
    body = await reader.readexactly(length)
    writer.close()
    return head.split(b" ", 2)[1], body, took


async def caller(number, port, until, seen):
    await asyncio.sleep(number % 100 / 100)
    while time.monotonic() < until:
        again = time.monotonic() + 1
        form = FORM % number
        status, body, took = await ask(port, WEBHOOK % (len(form), form))
        seen["webhook"].append((status == b"200" and b"<Say>" in body, took))
        status, body, took = await ask(port, UPGRADE)
        seen["socket"].append((status == b"503", took))
        await asyncio.sleep(again - time.monotonic())


async def main(port, callers, seconds):
    seen = {"webhook": [], "socket": []}
    until = time.monotonic() + seconds
    await asyncio.gather(*(caller(number, port, until, seen) for number in range(callers)))
    said = {}
    for name, answers in seen.items():
        took = sorted(1000 * ms for _, ms in answers)
        at = lambda q: took[min(len(took) - 1, int(q * len(took)))]
        said[name] = {"asked": len(answers), "refused": sum(fine for fine, _ in answers), "p50": at(0.5), "p99": at(0.99), "max": took[-1]}
    print(json.dumps(said))


asyncio.run(main(*map(int, sys.argv[1:])))
