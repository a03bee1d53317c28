"""Opens a media stream as Twilio does, with Python's `websockets`, and says how it was received.

    ws_handshake.py URL [--offer PROTOCOL]… [--deflate]

Prints one JSON line: opened, status, protocol, extensions, the messages received, how it closed.
With --deflate it offers permessage-deflate, as this client does unless told not to. Exits 0 if opened.
"""

import argparse
import json
import sys
import time

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.sync.client import connect

CALL_SID, STREAM_SID, ACCOUNT_SID = "CA" + "1" * 32, "MZ" + "2" * 32, "AC" + "3" * 32
OPENING = [
    {"event": "connected", "protocol": "Call", "version": "1.0.0"},
    {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "accountSid": ACCOUNT_SID,
            "streamSid": STREAM_SID,
            "callSid": CALL_SID,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"call_sid": CALL_SID},
        },
        "streamSid": STREAM_SID,
    },
]


def converse(ws, seconds):
    """Says Twilio's first two messages; returns what arrives within that time."""
    messages, end = [], time.monotonic() + seconds
    try:
        for message in OPENING:
            ws.send(json.dumps(message))
        while (left := end - time.monotonic()) > 0:
            messages.append(ws.recv(timeout=left))
    except (TimeoutError, ConnectionClosed):
        pass
    return messages


def handshake(url, offers, deflate, seconds):
    seen = {"opened": False, "status": None, "protocol": None, "extensions": None}
    try:
        ws = connect(
            url,
            subprotocols=offers or None,
            compression="deflate" if deflate else None,
            user_agent_header="Twilio.TmeWs/1.0",
            open_timeout=5,
            proxy=None,
        )
    except InvalidStatus as refused:
        body = (refused.response.body or b"").decode(errors="replace")
        return seen | {"status": refused.response.status_code, "body": body[:500]}
    except (InvalidHandshake, InvalidMessage, OSError, TimeoutError) as failed:
        return seen | {"error": f"{type(failed).__name__}: {failed}"}
    with ws:
        messages = converse(ws, seconds)
    return {
        "opened": True,
        "status": ws.response.status_code,
        "protocol": ws.subprotocol,
        "extensions": ws.response.headers.get("Sec-WebSocket-Extensions"),
        "received": len(messages),
        "first": messages[0] if messages else None,
        "close_code": ws.close_code,
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("url")
    arguments.add_argument("--offer", action="append", default=[])
    arguments.add_argument("--deflate", action="store_true")
    arguments.add_argument("--seconds", type=float, default=0.3)
    asked = arguments.parse_args()
    seen = handshake(asked.url, asked.offer, asked.deflate, asked.seconds)
    print(json.dumps(seen))
    return 0 if seen["opened"] else 1


if __name__ == "__main__":
    sys.exit(main())
