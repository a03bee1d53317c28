"""ElevenLabs' `POST /v1/text-to-speech/VOICE_ID` and the same with `/stream`, as its reference has
them. Its server is built on FastAPI, and misfits are told of as that does: 422, with their place.
"""

import re

from vendor import Misfit, Refusal, Speech, as_json, encoded, mulaw, number, once, only, pcm

PATH = re.compile(r"/v1/text-to-speech/([^/]+)(?:/stream)?")
VOICES = {
    "JBFqnCBsd6RMkjVDRZzb": "rms",
    "21m00Tcm4TlvDq8ikWAM": "slt",
    "pNInz6obpgDQGcFmaJgB": "awb",
}
MODELS = {"eleven_flash_v2_5", "eleven_flash_v2", "eleven_multilingual_v2", "eleven_v3"}
SETTINGS = {
    "stability": (0, 1),
    "similarity_boost": (0, 1),
    "style": (0, 1),
    "speed": (0.7, 1.2),
    "use_speaker_boost": None,
}
BODY = {
    "text",
    "model_id",
    "language_code",
    "voice_settings",
    "seed",
    "previous_text",
    "next_text",
    "apply_text_normalization",
}


def formats():
    known = {"ulaw_8000": ("audio/basic", mulaw(8_000))}
    for rate in (8_000, 16_000, 22_050, 24_000, 44_100, 48_000):
        known[f"pcm_{rate}"] = ("audio/pcm", pcm(rate))
    for rate, kbits in ((22_050, 32), (44_100, 32), (44_100, 64), (44_100, 96), (44_100, 128)):
        known[f"mp3_{rate}_{kbits}"] = ("audio/mpeg", f"-t mp3 -r {rate} -c 1 -C {kbits}".split())
    return known


FORMATS = formats()


def answers(path):
    return bool(PATH.fullmatch(path))


def answer(path, query, headers, body, _recogniser):
    account(headers.get("xi-api-key"))
    place = "query"
    try:
        query = once(query)
        only(query, {"output_format", "optimize_streaming_latency", "enable_logging"})
        name = query.get("output_format", "mp3_44100_128")
        if name not in FORMATS:
            raise Misfit("output_format", f"one of {', '.join(FORMATS)} is wanted")
        if query.get("optimize_streaming_latency", "0") not in ("0", "1", "2", "3", "4"):
            raise Misfit("optimize_streaming_latency", "0 to 4 is wanted")
        if query.get("enable_logging", "true") not in ("true", "false"):
            raise Misfit("enable_logging", "true or false is wanted")
        place = "body"
        asked = as_json(headers, body)
        check(asked)
        voice = VOICES.get(PATH.fullmatch(path)[1])
        if not voice:
            raise refusal(404, "voice_not_found", f"There is no voice {PATH.fullmatch(path)[1]}.")
        content_type, options = FORMATS[name]
        return Speech(content_type, encoded(asked["text"], voice, options), asked["text"], asked)
    except Misfit as misfit:
        where = [place, *misfit.where.split(".")] if misfit.where != place else [place]
        detail = {"loc": where, "msg": misfit.why, "type": "value_error"}
        raise Refusal(422, {"detail": [detail]}) from None


def check(asked):
    only(asked, BODY)
    if not isinstance(asked.get("text"), str) or not asked["text"]:
        raise Misfit("text", "a text is wanted")
    model = asked.get("model_id", "eleven_multilingual_v2")
    if model not in MODELS:
        raise refusal(400, "model_not_found", f"There is no model {model}.")
    if "language_code" in asked and not re.fullmatch("[a-z]{2}", str(asked["language_code"])):
        raise Misfit("language_code", "two letters (ISO 639-1) are wanted")
    settings = asked.get("voice_settings") or {}
    for name, value in settings.items():
        if name not in SETTINGS:
            raise Misfit(f"voice_settings.{name}", "unknown")
        if SETTINGS[name]:
            number(value, f"voice_settings.{name}", *SETTINGS[name])
        elif not isinstance(value, bool):
            raise Misfit(f"voice_settings.{name}", "true or false is wanted")


def refusal(status, word, message, headers=None):
    return Refusal(status, {"detail": {"status": word, "message": message}}, headers)


def account(key):
    if not key:
        raise refusal(401, "needs_authorization", "No key came: send it as xi-api-key.")
    if key == "el-limited":
        raise refusal(429, "too_many_concurrent_requests", "Your plan allows 2 at once.")
    if key == "el-broke":
        raise refusal(401, "quota_exceeded", "0 credits are left, and this needs 12.")
    if key == "el-down":
        raise refusal(500, "internal_server_error", "Out of order.")
    if key != "el-test":
        raise refusal(401, "invalid_api_key", "Not a key of ours.")
