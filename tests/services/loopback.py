"""A small HTTP/1.1 service on a loopback port: keep-alive, bodies and answers chunked or counted.

The recogniser and the voice are built on it. It reads what they are sent, writes what they answer,
and keeps the log that a test fetches with GET /log.
"""

import json
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from parent_watch import end_with_parent


class Log:
    """What a service has been asked, oldest first."""

    def __init__(self):
        self._entries = []
        self._lock = threading.Lock()

    def add(self, **entry):
        with self._lock:
            self._entries.append({"at": time.time(), **entry})

    def entries(self):
        with self._lock:
            return list(self._entries)


class Refused(Exception):
    """A request that the service does not accept: the status, and why."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class Service(BaseHTTPRequestHandler):
    """One connection. A service says in `post` what it answers to a POST."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    log = Log()

    def post(self, path, query, body):
        raise NotImplementedError

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/healthz":
            self.answer(200, "text/plain", b"ok")
        elif path == "/log":
            self.answer_json(200, self.log.entries())
        else:
            self.answer_json(404, {"error": f"no such path: {path}"})

    def do_POST(self):
        url = urlsplit(self.path)
        try:
            self.post(url.path, dict(parse_qsl(url.query)), self.read_body())
        except Refused as refused:
            self.answer_json(refused.status, {"error": str(refused)})

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(parts)

    def answer(self, status, content_type, body):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def answer_json(self, status, value):
        self.answer(status, "application/json", json.dumps(value).encode())

    def answer_stream(self, content_type, chunks):
        """Sends each chunk as soon as there is one."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            if chunk:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 256

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own looks its name up in the DNS
        self.server_name, self.server_port = self.server_address

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may hang up at any time
            super().handle_error(request, client_address)


def serve(service, port):
    """Serves until a signal or the parent's end; prints `ready` once connections are accepted."""
    end_with_parent()
    server = _Server(("127.0.0.1", port), service)
    print("ready", flush=True)
    server.serve_forever()
