"""HTTP clients that ask without a pause until SIGINT, and count what failed: `visitors.py PORT`.

A third keep their connection until they are told that it will be closed, a third open one for each request,
and a third open it half a second before they ask, as over a slow line. Nothing is tried twice: whatever is
not answered as it should be has failed. One JSON object on stdout at the end.
"""

import asyncio
import json
import signal
import sys
from collections import Counter

PAUSE = 0.02
SLOW = 0.5
# A page of the app, one with a body, and one that the gateway answers itself.
REQUESTS = [
    b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
]


async def ask(reader, writer, request):
    """Sends a request and reads its answer; whether the connection may be used again."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = head.split(" ", 2)[1]
    if status != "200":
        raise ValueError(f"{status} for {request[:20]}")
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if "content-length" in fields:
        await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    return fields.get("connection") != "close"


async def visitor(kind, port, stop, seen):
    connection = None
    asked = 0
    while not stop.is_set():
        try:
            async with asyncio.timeout(30):
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", port)
                    if kind == "slow":
                        await asyncio.sleep(SLOW)
                seen[kind] += 1
                asked += 1
                again = await ask(*connection, REQUESTS[asked % len(REQUESTS)])
        except Exception as error:
            seen["failed"] += 1
            seen[f"why {kind}: {type(error).__name__} {error}"] += 1
            again = False
        if connection and not (again and kind == "kept"):
            connection[1].close()
            connection = None
        await asyncio.sleep(PAUSE)


async def main(port):
    stop, seen = asyncio.Event(), Counter()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    each = {"kept": 8, "new": 8, "slow": 32}
    kinds = [kind for kind, number in each.items() for _ in range(number)]
    await asyncio.gather(*(visitor(kind, port, stop, seen) for kind in kinds))
    why = [f"{count} x {key[4:]}" for key, count in seen.items() if key.startswith("why ")]
    asked = {kind: seen[kind] for kind in each}
    print(json.dumps({"requests": sum(asked.values()), "kinds": asked, "failed": seen["failed"], "why": why}))


asyncio.run(main(int(sys.argv[1])))
