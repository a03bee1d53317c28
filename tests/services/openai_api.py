"""OpenAI's `POST /v1/audio/transcriptions` and `POST /v1/audio/speech`, as its reference has them."""

import re

from stt_server import from_pcm16, from_wav, to_model_rate
from loopback import Refused
from tts_server import run
from vendor import Misfit, Refusal, Speech, as_json, encoded, form, number, only, pcm

HEARING = {
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "whisper-1",
}
SPEAKING = {"tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15"}
# The recogniser knows the voice "rms" word for word.
VOICES = {
    **dict.fromkeys(["alloy", "ash", "ballad", "cedar", "echo", "onyx", "verse"], "rms"),
    **dict.fromkeys(["coral", "fable", "marin", "nova", "sage", "shimmer"], "slt"),
}
FORMATS = {
    "pcm": ("audio/pcm", pcm(24_000)),
    "wav": ("audio/wav", "-t wav -r 24000 -c 1 -b 16 -e signed".split()),
    "mp3": ("audio/mpeg", "-t mp3 -r 24000 -c 1 -C 64".split()),
    "flac": ("audio/flac", "-t flac -r 24000 -c 1 -b 16".split()),
    "opus": ("audio/opus", None),
    "aac": ("audio/aac", None),
}
FILES = {"flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "wav", "webm"}


def answers(path):
    return path in ("/v1/audio/transcriptions", "/v1/audio/speech")


def answer(path, query, headers, body, recogniser):
    account(headers.get("Authorization", ""))
    try:
        if query:
            raise Misfit("query", "no query is known here")
        if path.endswith("/speech"):
            return speech(as_json(headers, body))
        return transcription(*form(headers, body), recogniser)
    except Misfit as misfit:
        raise error(400, misfit.why, misfit.where, "invalid_value") from None


def error(status, message, param=None, code=None, kind="invalid_request_error", headers=None):
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Refusal(status, body, headers)


def account(authorization):
    scheme, _, key = authorization.partition(" ")
    if scheme != "Bearer" or not key:
        raise error(401, "No key came: send it as Authorization: Bearer KEY.")
    if key == "sk-limited":
        message = "The rate limit of your organisation is reached. Try again in 20s."
        raise error(
            429, message, code="rate_limit_exceeded", kind="requests", headers={"Retry-After": "20"}
        )
    if key == "sk-broke":
        raise error(
            429, "Your quota is used up.", code="insufficient_quota", kind="insufficient_quota"
        )
    if key == "sk-down":
        raise error(503, "Out of order.", kind="server_error")
    if key != "sk-test":
        raise error(401, f"Not a key of ours: {key}.", code="invalid_api_key")


def no_such_model(name):
    return error(
        404, f"The model `{name}` does not exist, or is not yours.", code="model_not_found"
    )


def transcription(fields, files, recogniser):
    only(fields, {"model", "language", "prompt", "temperature", "response_format"})
    only(files, {"file"})
    if "file" not in files:
        raise Misfit("file", "a file is wanted")
    if "model" not in fields:
        raise Misfit("model", "a model is wanted")
    if fields["model"] not in HEARING:
        raise no_such_model(fields["model"])
    if not re.fullmatch("[a-z]{2}", fields.get("language", "en")):
        raise Misfit("language", "a language of two letters (ISO-639-1) is wanted")
    try:
        number(float(fields.get("temperature", "0")), "temperature", 0, 1)
    except ValueError:
        raise Misfit("temperature", "a number is wanted") from None
    if fields.get("response_format", "json") != "json":
        raise Misfit("response_format", "this fake answers json only")
    name, content_type, data = files["file"]
    if name.rpartition(".")[2] not in FILES or "." not in name:
        raise Misfit("file", f"{name!r} does not tell its format by its ending")
    samples, rate = decoded(name, data)
    seconds = len(samples) / rate
    if seconds < 0.1:
        raise error(400, f"{seconds} s of audio; the shortest is 0.1 s.", "file", "audio_too_short")
    text = recogniser.text(to_model_rate(samples, rate))
    asked = {
        **fields,
        "file": name,
        "content_type": content_type,
        "bytes": len(data),
        "seconds": seconds,
    }
    return {"text": text, "usage": {"type": "duration", "seconds": round(seconds)}, "asked": asked}


def decoded(name, data):
    try:
        if name.endswith(".wav"):
            samples, rate = from_wav(data)
            if rate in (8_000, 16_000):
                return samples, rate
        kind = name.rpartition(".")[2]
        return (
            from_pcm16(run(["sox", "-D", "-V1", "-t", kind, "-", *pcm(16_000), "-"], data)),
            16_000,
        )
    except (Refused, OSError):
        raise Misfit("file", "the file cannot be decoded") from None


def speech(asked):
    only(
        asked,
        {"model", "voice", "input", "instructions", "speed", "response_format", "stream_format"},
    )
    for name in ("model", "voice", "input"):
        if not isinstance(asked.get(name), str) or not asked[name]:
            raise Misfit(name, f"{name} is wanted, as a text")
    if asked["model"] not in SPEAKING:
        raise no_such_model(asked["model"])
    if asked["voice"] not in VOICES:
        raise Misfit("voice", f"no such voice; there are {', '.join(sorted(VOICES))}")
    if len(asked["input"]) > 4096:
        raise Misfit("input", "more than 4096 characters")
    if not isinstance(asked.get("instructions", ""), str):
        raise Misfit("instructions", "a text is wanted")
    number(asked.get("speed", 1), "speed", 0.25, 4)
    if asked.get("stream_format", "audio") != "audio":
        raise Misfit("stream_format", "this fake streams audio only")
    content_type, options = FORMATS.get(asked.get("response_format", "mp3"), (None, None))
    if not options:
        raise Misfit("response_format", f"{asked.get('response_format')!r} is not to be had here")
    audio = encoded(asked["input"], VOICES[asked["voice"]], options)
    return Speech(content_type, audio, asked["input"], asked)
