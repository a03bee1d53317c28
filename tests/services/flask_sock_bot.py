"""A Flask-Sock bot as people wrote one for Twilio: `flask_sock_bot.py PORT FOLDER`. A loop in a thread
that receives, and sends whatever it has to say at once.

It says FOLDER/NAME.wav, where NAME is the custom parameter `say`, with a mark behind it; sends `clear`
when the caller talks into that; at # it says goodbye.wav and ends. GET /log lists the calls, GET /heard
is what the last caller said.
"""

import base64
import json
import os
import subprocess
import sys

from flask import Flask, Response, jsonify
from flask_sock import ConnectionClosed, Sock
from parent_watch import end_with_parent

FOLDER = sys.argv[2]
app = Flask(__name__)
sock = Sock(app)
calls = []


def mulaw(name):
    to_mulaw = ["sox", "-D", os.path.join(FOLDER, f"{name}.wav"), *"-t raw -r 8000 -c 1 -e mu-law -".split()]
    return subprocess.run(to_mulaw, check=True, capture_output=True).stdout


def is_loud(payload):
    """Most samples are beyond 500 of 32,767: the three bits of the segment say so."""
    return sum((~byte >> 4 & 7) >= 2 for byte in payload) > len(payload) / 2


@sock.route("/media")
def media(ws):
    told = {"events": [], "marks": [], "heard": bytearray(), "ended": False}
    calls.append(told)
    try:
        talk(ws, told)
    except ConnectionClosed:
        pass
    told["ended"] = True


def talk(ws, told):
    stream, loud = None, 0

    def say(name):
        audio = mulaw(name)
        for at in range(0, len(audio), 4_000):
            payload = base64.b64encode(audio[at : at + 4_000]).decode()
            ws.send(json.dumps({"event": "media", "streamSid": stream, "media": {"payload": payload}}))
        ws.send(json.dumps({"event": "mark", "streamSid": stream, "mark": {"name": name}}))

    while True:
        message = json.loads(ws.receive())
        event = message["event"]
        if told["events"][-1:] != [event]:
            told["events"].append(event)
        if event == "connected":
            told["kind"] = "twilio" if message["protocol"] == "Call" else message["protocol"]
        elif event == "start":
            start = message["start"]
            stream, told["call"], told["parameters"] = message["streamSid"], start["callSid"], start["customParameters"]
            say(told["parameters"]["say"])
        elif event == "media":
            payload = base64.b64decode(message["media"]["payload"])
            told["heard"] += payload
            loud = loud + 1 if is_loud(payload) else 0
            if loud == 5 and not told["marks"]:
                ws.send(json.dumps({"event": "clear", "streamSid": stream}))
        elif event == "mark":
            told["marks"].append(message["mark"]["name"])
        elif event == "dtmf" and message["dtmf"]["digit"] == "#":
            say("goodbye")
            return
        elif event == "stop":
            return


@app.get("/log")
def log():
    return jsonify([{name: told[name] for name in told if name != "heard"} for told in calls])


@app.get("/heard")
def heard():
    return Response(bytes(calls[-1]["heard"]), mimetype="audio/basic")


if __name__ == "__main__":
    end_with_parent()
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", int(sys.argv[1]), app, threaded=True)
    print("ready", flush=True)
    server.serve_forever()
