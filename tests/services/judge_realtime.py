"""OpenAI's own client judges the fake: `judge_realtime.py PORT` has `openai` talk to realtime_server.py as
it would talk to OpenAI, and holds every event that comes to the vendor's own types. Prints one line a
finding, and exits 1 if one is wrong."""

import base64
import json
import os
import subprocess
import sys
import tempfile

import openai
import pydantic
from openai.types.realtime import RealtimeServerEvent
from websockets.exceptions import InvalidStatus

HERE = os.path.dirname(os.path.abspath(__file__))
SERVER = pydantic.TypeAdapter(RealtimeServerEvent)
QUESTION = "what are your opening hours tomorrow"
findings = []


def finding(name, seen, wanted):
    findings.append(seen == wanted)
    verdict, but = ("ok   ", "") if seen == wanted else ("WRONG", f", not {wanted!r}")
    print(f"{verdict} {name}: {seen!r}{but}")


def spoken(text):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "said.wav")
        subprocess.run([os.path.join(HERE, "speak.sh"), text, path], check=True)
        command = ["sox", "-D", path, *"-t raw -r 8000 -c 1 -b 8 -e mu-law -".split()]
        return subprocess.run(command, check=True, capture_output=True).stdout


def connect(key="sk-test", model="gpt-realtime"):
    here = f"127.0.0.1:{sys.argv[1]}/v1"
    client = openai.OpenAI(base_url=f"http://{here}", websocket_base_url=f"ws://{here}", api_key=key)
    return client.realtime.connect(model=model)


def session(vad, **more):
    ulaw = {"type": "audio/pcmu"}
    heard = {"format": ulaw, "turn_detection": vad, "transcription": {"model": "whisper-1"}}
    audio = {"input": heard, "output": {"format": ulaw, "voice": "marin"}}
    return {"type": "realtime", "audio": audio, "instructions": "Be brief.", **more}


TOOL = {"type": "function", "name": "ask_agent", "description": "asks", "parameters": {"type": "object"}}
misfits = []


def until(connection, kind):
    """Events up to and with the first of this type, each of them held to the vendor's types."""
    events = []
    while True:
        raw = json.loads(connection.recv_bytes())
        try:
            SERVER.validate_python(raw)
        except pydantic.ValidationError as wrong:
            misfits.append((raw["type"], wrong.errors()[0]))
        events.append(connection.parse_event(json.dumps(raw)))
        if raw["type"] == kind or len(events) > 2000:
            return events


def of(events, kind):
    return [event for event in events if event.type == kind]


def append(connection, audio):
    for at in range(0, len(audio), 1600):
        connection.input_audio_buffer.append(audio=base64.b64encode(audio[at : at + 1600]).decode())


def judge_answer():
    with connect() as connection:
        finding("the first event", until(connection, "session.created")[-1].session.type, "realtime")
        connection.session.update(session=session({"type": "server_vad", "silence_duration_ms": 400}))
        asked = until(connection, "session.updated")[-1].session.audio
        finding("the formats", (asked.input.format.type, asked.output.format.type), ("audio/pcmu", "audio/pcmu"))
        append(connection, spoken(QUESTION) + b"\xff" * 8000)
        events = until(connection, "response.done")
        kinds = [event.type for event in events]
        order = [
            "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed", "conversation.item.input_audio_transcription.completed",
            "response.created", "response.output_item.added", "response.content_part.added",
            "response.output_audio.delta", "response.output_audio.done", "response.output_audio_transcript.done",
            "response.content_part.done", "response.output_item.done", "response.done",
        ]  # fmt: skip
        places = [kinds.index(kind) for kind in order if kind in kinds]
        finding("the events of a turn, in order", (len(places), places == sorted(places)), (len(order), True))
        heard = of(events, "conversation.item.input_audio_transcription.completed")[0]
        finding("what was heard", heard.transcript, QUESTION)
        words = "".join(event.delta for event in of(events, "response.output_audio_transcript.delta"))
        finding("what is said", words.strip(), "Yes, that is correct.")
        deltas = of(events, "response.output_audio.delta")
        audio = b"".join(base64.b64decode(event.delta) for event in deltas)
        finding("how long it is said", 1.0 < len(audio) / 8000 < 4.0, True)
        finding("how it ends", events[-1].response.status, "completed")

        item, ms = deltas[0].item_id, len(audio) // 8
        connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=ms + 500)
        error = until(connection, "error")[-1].error
        finding("more than there is", error.message, f"Audio content of {ms}ms is already shorter than {ms + 500}ms")
        connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=500)
        finding("a truncation", until(connection, "conversation.item.truncated")[-1].audio_end_ms, 500)


def judge_ours():
    with connect() as connection:
        connection.session.update(session=session(None, tools=[TOOL]))
        until(connection, "session.updated")
        connection.input_audio_buffer.commit()
        finding("nothing to commit", until(connection, "error")[-1].error.code, "input_audio_buffer_commit_empty")
        append(connection, spoken("please cancel my second order"))
        connection.input_audio_buffer.commit()
        until(connection, "input_audio_buffer.committed")
        connection.response.create()
        events = until(connection, "response.done")
        call = of(events, "response.function_call_arguments.done")[0]
        finding("a function call", (call.name, json.loads(call.arguments)["text"]), ("ask_agent", "please cancel my second order"))
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "It is cancelled."}
        connection.conversation.item.create(item=output)
        connection.response.create()
        connection.response.create()
        busy = until(connection, "error")[-1].error.code
        finding("two at once", busy, "conversation_already_has_active_response")
        connection.response.cancel()
        done = until(connection, "response.done")[-1].response
        finding("a cancelled one", (done.status, done.status_details.reason), ("cancelled", "client_cancelled"))
        connection.response.cancel()
        finding("nothing to cancel", until(connection, "error")[-1].error.code, "response_cancel_not_active")
        connection.conversation.item.create(item=output)
        finding("an answer to no call", until(connection, "error")[-1].error.param, "item.call_id")


def judge_refusals():
    for key, status in (("sk-wrong", 401), ("sk-limited", 429)):
        try:
            connect(key=key).enter()
        except InvalidStatus as refused:
            finding(f"the key {key}", refused.response.status_code, status)
        else:
            finding(f"the key {key}", "accepted", status)
    with connect(model="gpt-0") as connection:
        finding("no such model", until(connection, "error")[-1].error.code, "model_not_found")
    with connect() as connection:
        for name, event, param in [
            ("an unknown event", {"type": "session.dream"}, "type"),
            ("an unknown parameter", {"type": "response.create", "reply": {}}, "reply"),
            ("a session without a type", {"type": "session.update", "session": {}}, "session.update"),
            ("a temperature", {"type": "session.update", "session": session(None, temperature=1)}, "session.temperature"),
            ("a key of another detection", {"type": "session.update", "session": session({"type": "semantic_vad", "threshold": 1})},
             "session.audio.input.turn_detection.threshold"),
            ("no such voice", {"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"voice": "bob"}}}},
             "session.audio.output.voice"),
            ("what is not base64", {"type": "input_audio_buffer.append", "audio": "***"}, "audio"),
        ]:  # fmt: skip
            connection.send({"event_id": "mine", **event})
            error = until(connection, "error")[-1].error
            finding(name, (error.type, error.param, error.event_id), ("invalid_request_error", param, "mine"))


if __name__ == "__main__":
    judge_answer()
    judge_ours()
    judge_refusals()
    finding("events that are not the vendor's", misfits[:3], [])
    sys.exit(0 if all(findings) else 1)
