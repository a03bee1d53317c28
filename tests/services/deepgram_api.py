"""Deepgram's `POST /v1/speak`, as its reference has it: all but the text is in the query, and which
rates and containers there are depends on the encoding."""

import uuid

from vendor import Misfit, Refusal, Speech, as_json, encoded, number, once, only

VOICES = {"aura-2-thalia-en": "rms", "aura-2-andromeda-en": "slt", "aura-asteria-en": "awb"}
KNOWN = {
    "model",
    "encoding",
    "container",
    "sample_rate",
    "bit_rate",
    "speed",
    "mip_opt_out",
    "tag",
}
# encoding → (sample rates, containers, the first being the default; what sox calls it)
ENCODINGS = {
    "linear16": ((24_000, 8_000, 16_000, 32_000, 48_000), ("wav", "none"), "-b 16 -e signed"),
    "mulaw": ((8_000, 16_000), ("wav", "none"), "-b 8 -e mu-law"),
    "alaw": ((8_000, 16_000), ("wav", "none"), "-b 8 -e a-law"),
    "flac": ((48_000, 8_000, 16_000, 22_050, 32_000), (), "-b 16"),
    "mp3": ((), (), ""),
    "opus": ((), ("ogg",), None),
    "aac": ((), (), None),
}
TYPES = {
    "linear16": "audio/l16",
    "mulaw": "audio/mulaw",
    "alaw": "audio/alaw",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
}


def answers(path):
    return path == "/v1/speak"


def answer(_path, query, headers, body, _recogniser):
    account(headers.get("Authorization", ""))
    try:
        query = once(query)
        only(query, KNOWN)
        model = query.get("model", "aura-asteria-en")
        if model not in VOICES:
            raise Misfit("model", "there is no such model, language and version")
        options, content_type = output(query)
        if "speed" in query:
            number(float(query["speed"]), "speed", 0.7, 1.5)
        if query.get("mip_opt_out", "true") not in ("true", "false"):
            raise Misfit("mip_opt_out", "true or false is wanted")
        asked = as_json(headers, body)
        only(asked, {"text"})
        if not isinstance(asked.get("text"), str) or not asked["text"].strip():
            raise Misfit("text", "a text is wanted")
        if len(asked["text"]) > 2_000:
            raise error(413, "PAYLOAD_TOO_LARGE", "More than 2000 characters.")
        return Speech(
            content_type, encoded(asked["text"], VOICES[model], options), asked["text"], asked
        )
    except Misfit as misfit:
        raise error(400, "Bad Request", f"{misfit.where}: {misfit.why}") from None
    except ValueError:
        raise error(400, "Bad Request", "a number is wanted") from None


def output(query):
    """What sox is told, and the Content-Type."""
    encoding = query.get("encoding", "mp3")
    if encoding not in ENCODINGS:
        raise Misfit("encoding", f"one of {', '.join(ENCODINGS)} is wanted")
    rates, containers, coding = ENCODINGS[encoding]
    if coding is None:
        raise Misfit("encoding", "this fake has no encoder for that")
    if "sample_rate" in query and int(query["sample_rate"]) not in rates:
        raise Misfit("sample_rate", f"{encoding} is not to be had at {query['sample_rate']} Hz")
    if "container" in query and query["container"] not in containers:
        raise Misfit("container", f"{encoding} does not go into {query['container']}")
    if "bit_rate" in query and (encoding != "mp3" or query["bit_rate"] not in ("32000", "48000")):
        raise Misfit("bit_rate", f"{encoding} is not to be had at that")
    if encoding == "mp3":
        return (
            f"-t mp3 -r 22050 -c 1 -C {int(query.get('bit_rate', 48_000)) // 1000}".split(),
            TYPES["mp3"],
        )
    rate = int(query.get("sample_rate", rates[0]))
    container = query.get("container", containers[0]) if containers else None
    kind = "flac" if encoding == "flac" else "raw" if container == "none" else "wav"
    little = "-L" if encoding == "linear16" else ""
    content_type = (
        "audio/wav"
        if kind == "wav"
        else f"{TYPES[encoding]};rate={rate}" if encoding == "linear16" else TYPES[encoding]
    )
    return f"-t {kind} -r {rate} -c 1 {coding} {little}".split(), content_type


def error(status, code, message, headers=None):
    body = {"err_code": code, "err_msg": message, "request_id": str(uuid.uuid4())}
    return Refusal(status, body, headers)


def account(authorization):
    scheme, _, key = authorization.partition(" ")
    if scheme not in ("Token", "token", "Bearer", "bearer") or not key:
        raise error(401, "INVALID_AUTH", "No key came: send it as Authorization: Token KEY.")
    if key == "dg-limited":
        raise error(
            429, "TOO_MANY_REQUESTS", "Too many at once. Try again later.", {"Retry-After": "5"}
        )
    if key == "dg-broke":
        raise error(402, "ASR_PAYMENT_REQUIRED", "The project has no credit.")
    if key == "dg-down":
        raise error(503, "UNAVAILABLE", "Out of order.")
    if key != "dg-test":
        raise error(401, "INVALID_AUTH", "Not a key of ours.")
