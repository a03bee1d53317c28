"""The legacy Flask app that voxgate stands in front of, with the one route that voxgate adds to it.

    gunicorn -c gunicorn.conf.py -k gthread --threads 16 -w 1 -b 127.0.0.1:PORT legacy_app:app

Whatever no other route answers falls through to an HTML page which shows the request as it arrived
here. That page is how a media stream fails on the app alone: HTML where a 101 was wanted.
"""

import hashlib
import html
import json
import time

from flask import Flask, Response, jsonify, request
from flask_sock import Sock

import agent

app = Flask(__name__)
sock = Sock(app)
app.register_blueprint(agent.routes)

EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def digest_of_body():
    """Reads the body as it comes in; it never is in memory as a whole."""
    length, sha256 = 0, hashlib.sha256()
    while part := request.stream.read(64 * 1024):
        length += len(part)
        sha256.update(part)
    return {"length": length, "sha256": sha256.hexdigest()}


def as_received():
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query_string.decode("latin-1"),
        "headers": [list(header) for header in request.headers],
        "remote": request.remote_addr,
        "body": digest_of_body(),
    }


@app.route("/", defaults={"path": ""}, methods=EVERY_METHOD)
@app.route("/<path:path>", methods=EVERY_METHOD)
@app.route("/<path:path>", websocket=True)
def fall_through(path):
    seen = html.escape(json.dumps(as_received(), indent=1))
    return f"<html><body><h1>The request fell through to the app</h1><pre>{seen}</pre></body></html>"


@app.route("/echo", methods=EVERY_METHOD)
def echo():
    return jsonify(as_received())


@app.post("/webhook/incoming_call")
def incoming_call():
    """TwiML as the operator's app answers it: connect the call to a media stream, then hang up."""
    host = html.escape(request.headers.get("X-Forwarded-Host") or request.host)
    call_sid = html.escape(request.form.get("CallSid", ""))
    twiml = f"""<?xml version="1.0" encoding="UTF-8"?>
<Response>
  <Connect>
    <Stream url="wss://{host}/ws/twilio-media" statusCallback="https://{host}/webhook/stream_status"
            statusCallbackMethod="POST">
      <Parameter name="call_sid" value="{call_sid}"/>
    </Stream>
  </Connect>
  <Hangup/>
</Response>
"""
    return Response(twiml, mimetype="text/xml")


@app.post("/webhook/stream_ended")
def stream_ended():
    return Response("<Response><Hangup/></Response>", mimetype="text/xml")


@sock.route("/ws/legacy-echo")
def legacy_echo(ws):
    """A WebSocket of the app's own, which must pass through the gateway untouched."""
    while True:
        ws.send(ws.receive())


@app.route("/upload", methods=["POST", "PUT"])
def upload():
    return jsonify(digest_of_body())


@app.get("/big")
def big():
    """`bytes` bytes, 0 to 250 over and over, with their length in the head unless `chunked=1`."""
    wanted = request.args.get("bytes", 1_000_000, type=int)
    pattern = bytes(range(251)) * 256

    def body():
        left = wanted
        while left > 0:
            yield pattern[:left]
            left -= len(pattern)

    answer = Response(body(), mimetype="application/octet-stream")
    if not request.args.get("chunked"):
        answer.content_length = wanted
    return answer


@app.get("/slow")
def slow():
    ms = request.args.get("ms", 1_000, type=int)
    time.sleep(ms / 1000)
    return Response(f"waited {ms} ms\n", mimetype="text/plain")


@app.get("/status/<int:code>")
def status(code):
    """An error of the app's own, which the gateway must not replace by one of its own."""
    return Response(f"the app answers {code}\n", status=code, mimetype="text/plain")


@app.get("/sse")
def sse():
    """`count` server-sent events, one each 100 ms: whoever buffers them shows it by their times."""

    count = request.args.get("count", 10, type=int)

    def events():
        for number in range(count):
            yield f"id: {number}\ndata: {time.time():.3f}\n\n"
            time.sleep(0.1)

    return Response(events(), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})
