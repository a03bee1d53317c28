"""What a session of OpenAI's Realtime API may be told to be, in both forms that the API has had, and
what its client events may hold: checked as strictly as the vendor does, by its reference."""

import re

import pydantic
from openai.types.realtime import RealtimeClientEvent

VOICES = {"alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"}
BETA_FORMATS = {"pcm16", "g711_ulaw", "g711_alaw"}
FORMATS = {"audio/pcm", "audio/pcmu", "audio/pcma"}
VADS = {
    "server_vad": {
        "type", "threshold", "prefix_padding_ms", "silence_duration_ms", "create_response", "interrupt_response",
        "idle_timeout_ms",
    },
    "semantic_vad": {"type", "eagerness", "create_response", "interrupt_response"},
}  # fmt: skip
GA = {
    "type", "output_modalities", "instructions", "audio", "tools", "tool_choice", "max_output_tokens", "include",
    "model", "prompt", "tracing", "truncation", "parallel_tool_calls", "reasoning",
}  # fmt: skip
BETA = {
    "modalities", "instructions", "voice", "input_audio_format", "output_audio_format", "tools", "tool_choice",
    "input_audio_transcription", "input_audio_noise_reduction", "turn_detection", "temperature", "speed",
    "max_response_output_tokens", "model",
}  # fmt: skip
EVENTS = {
    "session.update": {"session"},
    "input_audio_buffer.append": {"audio"},
    "input_audio_buffer.commit": set(),
    "input_audio_buffer.clear": set(),
    "conversation.item.create": {"item", "previous_item_id"},
    "conversation.item.truncate": {"item_id", "content_index", "audio_end_ms"},
    "response.create": {"response"},
    "response.cancel": {"response_id"},
}
CLIENT = pydantic.TypeAdapter(RealtimeClientEvent)


class Wrong(Exception):
    """An event that the vendor answers with `error`."""

    def __init__(self, message, param=None, code="invalid_value", kind="invalid_request_error"):
        super().__init__(message)
        self.error = {"type": kind, "code": code, "message": message, "param": param, "event_id": None}


def check_event(event, beta):
    """The type of a client event that is one."""
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise Wrong("Missing required parameter: 'type'.", "type", "missing_required_parameter")
    kind = event["type"]
    if kind not in EVENTS:
        raise Wrong(f"Invalid value: '{kind}'. Supported values are: {sorted(EVENTS)}.", "type")
    only(event, EVENTS[kind] | {"type", "event_id"}, "")
    if not isinstance(event.get("event_id", ""), str) or len(event.get("event_id", "")) > 512:
        raise Wrong("Invalid 'event_id'.", "event_id")
    if not beta:
        # The vendor's own types have the last word.
        try:
            CLIENT.validate_python(event)
        except pydantic.ValidationError as wrong:
            raise Wrong(f"not an event of the API: {wrong.errors()[0]}", kind) from None
    return kind


def only(given, known, where):
    if not isinstance(given, dict):
        raise Wrong(f"Invalid type for '{where}': expected an object.", where, "invalid_type")
    for name in given:
        if name not in known:
            param = f"{where}.{name}".lstrip(".")
            raise Wrong(f"Unknown parameter: '{param}'.", param, "unknown_parameter")


def number(value, where, low, high):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise Wrong(f"Invalid '{where}': expected a number from {low} to {high}, but got {value!r}.", where)


def session(given, beta):
    """What is asked of a session: the formats, the turn detection, the tools, in one form."""
    return beta_session(given) if beta else ga_session(given)


def ga_session(given):
    only(given, GA, "session")
    if given.get("type") != "realtime":
        raise Wrong("Missing required parameter: 'session.type'.", "session.type", "missing_required_parameter")
    if given.get("output_modalities", ["audio"]) not in (["audio"], ["text"]):
        raise Wrong("Invalid modalities.", "session.output_modalities")
    audio = given.get("audio", {})
    only(audio, {"input", "output"}, "session.audio")
    heard, said = audio.get("input", {}), audio.get("output", {})
    only(heard, {"format", "turn_detection", "transcription", "noise_reduction"}, "session.audio.input")
    only(said, {"format", "voice", "speed"}, "session.audio.output")
    formats = []
    for side, name in ((heard, "input"), (said, "output")):
        form = side.get("format", {"type": "audio/pcm", "rate": 24_000})
        only(form, {"type", "rate"}, f"session.audio.{name}.format")
        if form.get("type") not in FORMATS or (form["type"] == "audio/pcm") != ("rate" in form):
            raise Wrong("Invalid format.", f"session.audio.{name}.format")
        formats.append(form["type"])
    if said.get("voice", "marin") not in VOICES:
        raise Wrong(f"Invalid value: {said['voice']!r}.", "session.audio.output.voice")
    number(said.get("speed", 1), "session.audio.output.speed", 0.25, 1.5)
    asked = common(given, heard, "session.audio.input.", "turn_detection", "transcription", "noise_reduction")
    limit(given.get("max_output_tokens", "inf"), "session.max_output_tokens")
    return {**asked, "input": formats[0], "output": formats[1]}


def beta_session(given):
    only(given, BETA, "session")
    formats = []
    for name in ("input_audio_format", "output_audio_format"):
        if given.get(name, "pcm16") not in BETA_FORMATS:
            raise Wrong("Invalid format.", f"session.{name}")
        names = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
        formats.append(names[given.get(name, "pcm16")])
    if set(given.get("modalities", ["audio", "text"])) not in ({"text"}, {"audio", "text"}):
        raise Wrong("Invalid modalities.", "session.modalities")
    if given.get("voice", "alloy") not in VOICES:
        raise Wrong(f"Invalid value: {given['voice']!r}.", "session.voice")
    number(given.get("temperature", 0.8), "session.temperature", 0.6, 1.2)
    limit(given.get("max_response_output_tokens", "inf"), "session.max_response_output_tokens")
    names = ("turn_detection", "input_audio_transcription", "input_audio_noise_reduction")
    asked = common(given, given, "session.", *names)
    return {**asked, "input": formats[0], "output": formats[1]}


def limit(value, where):
    if value != "inf":
        number(value, where, 1, 4096)


def common(given, heard, where, detection, transcription, noise):
    vad = heard.get(detection, {"type": "server_vad"})
    if vad is not None:
        if not isinstance(vad, dict) or vad.get("type") not in VADS:
            raise Wrong("Invalid turn detection.", f"{where}{detection}.type")
        only(vad, VADS[vad["type"]], f"{where}{detection}")
        number(vad.get("threshold", 0.5), f"{where}{detection}.threshold", 0, 1)
        number(vad.get("silence_duration_ms", 500), f"{where}{detection}.silence_duration_ms", 0, 20_000)
        number(vad.get("prefix_padding_ms", 300), f"{where}{detection}.prefix_padding_ms", 0, 20_000)
        if vad.get("idle_timeout_ms") is not None:
            number(vad["idle_timeout_ms"], f"{where}{detection}.idle_timeout_ms", 5_000, 30_000)
        if vad.get("eagerness", "auto") not in ("low", "medium", "high", "auto"):
            raise Wrong("Invalid eagerness.", f"{where}{detection}.eagerness")
    writes = heard.get(transcription)
    if writes is not None:
        only(writes, {"model", "language", "prompt"}, f"{where}{transcription}")
        if writes.get("model") not in ("whisper-1", "gpt-4o-mini-transcribe", "gpt-4o-transcribe", "gpt-transcribe"):
            raise Wrong("Invalid model.", f"{where}{transcription}.model")
    if heard.get(noise) is not None and heard[noise].get("type") not in ("near_field", "far_field"):
        raise Wrong("Invalid noise reduction.", f"{where}{noise}.type")
    if not isinstance(given.get("instructions", ""), str):
        raise Wrong("Invalid type.", "session.instructions", "invalid_type")
    tools = given.get("tools", [])
    for place, tool in enumerate(tools):
        only(tool, {"type", "name", "description", "parameters"}, f"session.tools[{place}]")
        name = tool.get("name", "")
        if tool.get("type") != "function" or not re.fullmatch("[a-zA-Z0-9_-]{1,64}", name):
            raise Wrong("Invalid tool.", f"session.tools[{place}].name")
        if tool.get("parameters", {"type": "object"}).get("type") != "object":
            raise Wrong("Invalid schema.", f"session.tools[{place}].parameters")
    return {"vad": vad, "transcribes": writes is not None, "tools": [tool["name"] for tool in tools]}


def response(given):
    known = {"instructions", "output_modalities", "modalities", "metadata", "tools", "tool_choice", "audio", "input"}
    only(given, known, "response")
    return given.get("instructions")


def item(given, calls, beta):
    """What an item says; `calls` are the function calls that want an answer."""
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "function_call_output":
        only(given, {"id", "type", "call_id", "output"}, "item")
        if given.get("call_id") not in calls:
            raise Wrong(f"Tool call ID '{given.get('call_id')}' not found in conversation.", "item.call_id")
        if not isinstance(given.get("output"), str):
            raise Wrong("Invalid type.", "item.output", "invalid_type")
        return given["output"]
    if kind != "message":
        raise Wrong("Invalid item type.", "item.type")
    only(given, {"id", "type", "role", "content", "status"}, "item")
    kinds = {"user": "input_text", "system": "input_text", "assistant": "text" if beta else "output_text"}
    role, content = given.get("role"), given.get("content")
    if role not in kinds or not isinstance(content, list) or not content:
        raise Wrong("Invalid message.", "item.content")
    for place, part in enumerate(content):
        only(part, {"type", "text"}, f"item.content[{place}]")
        if part.get("type") != kinds[role] or not isinstance(part.get("text"), str):
            raise Wrong(f"Invalid value: '{part.get('type')}'.", f"item.content[{place}].type")
    return " ".join(part["text"] for part in content)
