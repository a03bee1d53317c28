"""What the fakes of the vendors have in common: refusals, speech in the formats that they sell, JSON
and forms read without forgiveness."""

import dataclasses
import json
import subprocess
import tempfile

from tts_server import engine, run


class Refusal(Exception):
    """A request that the vendor does not accept: the status, and its JSON."""

    def __init__(self, status, body, headers=None):
        super().__init__(f"{status} {body}")
        self.status, self.body, self.headers = status, body, headers or {}


class Misfit(Exception):
    """Something in a request that does not fit: where, and why. Each vendor has its own words."""

    def __init__(self, where, why):
        super().__init__(why)
        self.where, self.why = where, why


@dataclasses.dataclass
class Speech:
    content_type: str
    audio: bytes
    text: str
    asked: dict


def encoded(text, voice, options):
    """The text, spoken and then made into what sox is told by these options."""
    wav = engine(text, voice)
    try:
        with tempfile.NamedTemporaryFile() as out:  # to a file, so that a WAV's length comes out true
            run(["sox", "-D", "-V1", "--ignore-length", "-t", "wav", "-", *options, out.name], wav)
            return out.read()
    except subprocess.CalledProcessError:
        raise Misfit("format", "this fake has no encoder for that") from None


def pcm(rate):
    return f"-t raw -r {rate} -c 1 -b 16 -e signed -L".split()


def mulaw(rate):
    return f"-t raw -r {rate} -c 1 -b 8 -e mu-law".split()


def as_json(headers, body):
    """The JSON object of a body that says that it is one."""
    kind = headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Misfit("body", f"Content-Type is {kind or 'absent'}, not application/json")
    try:
        value = json.loads(body)
    except ValueError as wrong:
        raise Misfit("body", f"not JSON: {wrong}") from None
    if not isinstance(value, dict):
        raise Misfit("body", "not a JSON object")
    return value


def only(given, known):
    for name in given:
        if name not in known:
            raise Misfit(name, f"unknown parameter: {name}")


def number(value, where, low, high):
    # True and "1" are numbers to Python.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise Misfit(where, f"a number from {low} to {high} is wanted, not {value!r}")


def once(query):
    """The query as a dict, in which no name may stand twice."""
    names = [name for name, _ in query]
    for name in names:
        if names.count(name) > 1:
            raise Misfit(name, f"given twice: {name}")
    return dict(query)


def form(headers, body):
    """The fields of a multipart form, and its files as (name, content type, bytes), by name."""
    kind, _, rest = headers.get("Content-Type", "").partition(";")
    name, _, boundary = rest.strip().partition("=")
    if kind.strip().lower() != "multipart/form-data" or name != "boundary" or not boundary:
        raise Misfit("body", "not multipart/form-data with a boundary")
    line = b"--" + boundary.strip('"').encode()
    parts = (b"\r\n" + body).split(b"\r\n" + line)
    if parts[0] or parts[-1].strip() != b"--" or len(parts) < 3:
        raise Misfit("body", "a form that does not begin and end with its boundary")
    fields, files = {}, {}
    for part in parts[1:-1]:
        head, gap, value = part.partition(b"\r\n\r\n")
        if not gap or not head.startswith(b"\r\n"):
            raise Misfit("body", "a part without a head")
        lines = dict(line.split(": ", 1) for line in head.decode().strip().split("\r\n"))
        lines = {name.lower(): value for name, value in lines.items()}
        about, *attributes = lines.get("content-disposition", "").split("; ")
        attributes = dict(attribute.split("=", 1) for attribute in attributes)
        name = attributes.get("name", "").strip('"')
        if about != "form-data" or not name or name in fields or name in files:
            raise Misfit("body", f"a part that is no field, or is there twice: {name!r}")
        if "filename" in attributes:
            files[name] = (attributes["filename"].strip('"'), lines.get("content-type", ""), value)
        else:
            fields[name] = value.decode()
    return fields, files
