"""What people run without voxgate: Flask and Flask-Sock under eventlet, as an echo. `flask_eventlet.py PORT`.

A frame is decoded and measured, as barge-in needs it, and sent back. Nothing paces it."""

import eventlet

eventlet.monkey_patch()

import base64
import json
import sys

import eventlet.wsgi
from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)
LINEAR = [(-1) ** (byte < 128) * ((((~byte & 15) << 3) + 132 << (~byte >> 4 & 7)) - 132) for byte in range(256)]


@sock.route("/ws/twilio-media")
def media(ws):
    while True:
        message = json.loads(ws.receive())
        if message["event"] == "media":
            audio = base64.b64decode(message["media"]["payload"])
            loud = (sum(LINEAR[byte] ** 2 for byte in audio) / len(audio)) ** 0.5
            if loud >= 0:
                payload = base64.b64encode(audio).decode()
                ws.send(json.dumps({"event": "media", "streamSid": message["streamSid"], "media": {"payload": payload}}))
        elif message["event"] == "stop":
            return


if __name__ == "__main__":
    eventlet.wsgi.server(eventlet.listen(("127.0.0.1", int(sys.argv[1]))), app, log_output=False)
