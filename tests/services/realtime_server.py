"""OpenAI's Realtime API: `realtime_server.py PORT [MANNER]` serves GET /v1/realtime, a model that hears
real words and answers in a real voice, written from the vendor's reference and as strict: a wrong key,
event or order is refused as the vendor refuses it. With the header `OpenAI-Beta: realtime=v1` it speaks as
the API did in preview.

MANNER is a bad day of it, see MANNERS. GET /log lists the connections, GET /break breaks those there are.
"""

import asyncio
import base64
import json
import sys
import uuid
from urllib.parse import parse_qs, urlsplit

import numpy as np
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

import openai_api
import realtime_session
from ears import RATE, Ears, Model
from parent_watch import end_with_parent
from realtime_session import Wrong
from stt_server import from_pcm16, from_ulaw
from vendor import Refusal, encoded, mulaw, pcm

MODELS = {"gpt-realtime", "gpt-realtime-mini", "gpt-4o-realtime-preview"}
MANNERS = {
    "pcm": "sends PCM at 24 kHz, whatever it was asked for",
    "cut": "breaks the connection in the middle of its first reply",
    "dies": "breaks every connection with its first reply",
    "fails": "its first response fails",
    "incomplete": "its first response ends before its words do",
    "garbage": "says between its words what is no event",
    "mute": "accepts everything and never replies",
    "runs_on": "does not stop by itself when the caller speaks",
}
CHUNK = 200  # ms of speech in a delta
PACE = 4  # times faster than it is spoken
LATE = 2  # deltas that come after a response was stopped

TABLE = (
    "Of course, I can book a table for two people. "
    "We have a quiet table by the window at seven, and another one near the bar at half past eight. "
    "The kitchen closes at ten, and the terrace is open until eleven if the weather is good. "
    "Which of the two would you like?"
)
# What was said → (text, function, arguments)
REPLIES = {
    "what are your opening hours tomorrow": ("Yes, that is correct.", None, None),
    "book a table for two people": (TABLE, None, None),
    "wait i have another question": ("No, that is wrong.", None, None),
    "hello is anybody there": ("Hello, is anybody there?", None, None),
    "thank you very much goodbye": ("Thank you very much. Goodbye.", "hangup", {}),
    "i want to speak to a person": ("", "transfer", {"to": "+15550100"}),
    "please cancel my second order": ("", "ask_agent", {"text": "please cancel my second order"}),
    "send me the invoice by email": ("One moment.", "send_invoice", {"text": "", "to": "me"}),
    "my internet is not working": ("", "ask_agent", {"text": "i need help with my bill"}),
}


def ident(kind):
    return f"{kind}_{uuid.uuid4().hex[:20]}"


class NoGuess:
    """The model without its guesses while somebody speaks: nobody asks for them."""

    def __init__(self, model):
        self.text = model.text

    def guess(self, pcm):
        return ""


class Session:
    def __init__(self, ws, beta, model, manner, entry):
        self.ws, self.beta, self.model, self.manner, self.entry = ws, beta, model, manner, entry
        self.asked = {"vad": {"type": "server_vad"}, "input": "audio/pcm", "output": "audio/pcm", "tools": [],
                      "transcribes": False}  # fmt: skip
        self.ears, self.speaking = None, False
        self.buffer = np.zeros(0, np.int16)
        self.appended = 0
        self.items = {}  # id → ms of audio, for what the model has said
        self.calls = []  # function calls that want an answer
        self.last = None  # what is to be answered
        self.response = None  # the task of the one that is under way
        self.responses = 0

    async def send(self, kind, **more):
        if self.beta:
            kind = kind.replace("response.output_audio", "response.audio")
        await self.ws.send(json.dumps({"type": kind, "event_id": ident("event"), **more}))

    def about(self):
        heard = {"format": {"type": self.asked["input"]}, "turn_detection": self.asked["vad"]}
        said = {"format": {"type": self.asked["output"]}, "voice": "marin"}
        for side in (heard, said):
            if side["format"]["type"] == "audio/pcm":
                side["format"]["rate"] = 24_000
        if self.beta:
            names = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
            return {"id": ident("sess"), "object": "realtime.session", "modalities": ["audio", "text"],
                    "input_audio_format": names[self.asked["input"]],
                    "output_audio_format": names[self.asked["output"]]}  # fmt: skip
        return {"type": "realtime", "object": "realtime.session", "id": ident("sess"),
                "output_modalities": ["audio"], "audio": {"input": heard, "output": said}}  # fmt: skip

    async def run(self):
        await self.send("session.created", session=self.about())
        async for message in self.ws:
            try:
                if isinstance(message, bytes):
                    raise Wrong("binary messages are not supported")
                try:
                    event = json.loads(message)
                except ValueError:
                    raise Wrong("not JSON", code="invalid_json") from None
                await self.take(event)
            except Wrong as wrong:
                name = event.get("event_id") if isinstance(event, dict) else None
                self.entry["errors"].append({**wrong.error, "event_id": name})
                await self.send("error", error={**wrong.error, "event_id": name})

    async def take(self, event):
        kind = realtime_session.check_event(event, self.beta)
        if kind != "input_audio_buffer.append":
            self.entry["events"].append(event)
        await getattr(self, "on_" + kind.replace(".", "_"))(event)

    # ---- what the client may say

    async def on_session_update(self, event):
        self.asked = realtime_session.session(event["session"], self.beta)
        vad = self.asked["vad"]
        self.ears = None
        if vad:
            silence = vad.get("silence_duration_ms", 500) * RATE // 1000
            self.ears = Ears(NoGuess(self.model), silence)
        await self.send("session.updated", session=self.about())

    async def on_input_audio_buffer_append(self, event):
        try:
            data = base64.b64decode(event["audio"], validate=True)
        except (ValueError, TypeError):
            raise Wrong("Invalid 'audio'. Expected base64.", "audio") from None
        if self.asked["input"] == "audio/pcmu":
            heard = from_ulaw(data)
        else:
            heard = from_pcm16(data)[::3]
        self.appended += len(heard)
        self.entry["appended_ms"] = self.appended * 1000 // RATE
        if not self.ears:
            self.buffer = np.concatenate((self.buffer, heard))[-RATE * 60 :]
            return
        for kind, text, begin, until in self.ears.hear(heard):
            if kind == "end":
                await self.stopped(text, until)
        if self.ears._speech is not None and not self.speaking:
            self.speaking = True
            self.item = ident("item")
            start = self.ears._speech * 1000 // RATE
            await self.send("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self.item)
            if self.asked["vad"].get("interrupt_response", True) and self.manner != "runs_on":
                await self.stop_response("turn_detected")

    async def stopped(self, text, until):
        self.speaking = False
        ms = until * 1000 // RATE
        await self.send("input_audio_buffer.speech_stopped", audio_end_ms=ms, item_id=self.item)
        await self.said(self.item, text)
        if self.asked["vad"].get("create_response", True) and not self.response:
            await self.respond(None)

    async def said(self, item, text):
        """The caller's words are an item of the conversation now."""
        await self.send("input_audio_buffer.committed", item_id=item, previous_item_id=None)
        content = [{"type": "input_audio", "transcript": None}]
        await self.added({"id": item, "type": "message", "role": "user", "status": "completed", "content": content})
        self.entry["heard"].append(text)
        self.last = ("said", text)
        if self.asked["transcribes"]:
            place = {"item_id": item, "content_index": 0}
            name = "conversation.item.input_audio_transcription"
            if text:
                await self.send(f"{name}.delta", **place, delta=text[: len(text) // 2])
                await self.send(f"{name}.delta", **place, delta=text[len(text) // 2 :])
            await self.send(f"{name}.completed", **place, transcript=text, usage={"type": "duration", "seconds": 1})

    async def added(self, item):
        if self.beta:
            await self.send("conversation.item.created", previous_item_id=None, item=item)
        else:
            await self.send("conversation.item.added", previous_item_id=None, item=item)
            await self.send("conversation.item.done", previous_item_id=None, item=item)

    async def on_input_audio_buffer_commit(self, event):
        if len(self.buffer) < RATE // 10:
            ms = len(self.buffer) * 1000 / RATE
            message = f"Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but buffer only has {ms:.2f}ms of audio."
            raise Wrong(message, code="input_audio_buffer_commit_empty")
        pcm, self.buffer = self.buffer, np.zeros(0, np.int16)
        self.entry["committed_ms"].append(len(pcm) * 1000 // RATE)
        await self.said(ident("item"), self.model.text(pcm))

    async def on_input_audio_buffer_clear(self, event):
        self.buffer = np.zeros(0, np.int16)
        await self.send("input_audio_buffer.cleared")

    async def on_conversation_item_create(self, event):
        item = event["item"]
        text = realtime_session.item(item, self.calls, self.beta)
        if item["type"] == "function_call_output":
            self.calls.remove(item["call_id"])
            self.entry["outputs"].append(text)
            self.last = ("output", text)
        elif item["role"] == "user":
            self.last = ("wrote", text)
        await self.added({"id": ident("item"), "object": "realtime.item", "status": "completed", **item})

    async def on_conversation_item_truncate(self, event):
        item, ms = event["item_id"], event["audio_end_ms"]
        if item not in self.items:
            raise Wrong(f"Item with item_id not found: {item}", "item_id", "item_truncate_invalid_item_id")
        if event["content_index"] != 0:
            raise Wrong("Only content part 0 has audio.", "content_index")
        if ms < 0 or ms > self.items[item]:
            message = f"Audio content of {self.items[item]}ms is already shorter than {ms}ms"
            raise Wrong(message, "audio_end_ms")
        self.entry["truncations"].append({"item": item, "ms": ms, "of": self.items[item]})
        await self.send("conversation.item.truncated", item_id=item, content_index=0, audio_end_ms=ms)

    async def on_response_create(self, event):
        instructions = realtime_session.response(event.get("response", {}))
        if self.response:
            message = "Conversation already has an active response in progress. Wait until the response is finished before creating a new one."
            raise Wrong(message, code="conversation_already_has_active_response")
        await self.respond(instructions)

    async def on_response_cancel(self, event):
        if not self.response:
            raise Wrong("Cancellation failed: no active response found", code="response_cancel_not_active")
        await self.stop_response("client_cancelled")

    # ---- what it says

    async def respond(self, instructions):
        if self.manner == "mute":
            return
        self.responses += 1
        self.response = asyncio.create_task(self.speak(ident("resp"), instructions))

    async def stop_response(self, reason):
        if self.response:
            self.response.cancel(reason)
            await asyncio.wait([self.response])

    def reply(self, instructions):
        if instructions and ": " in instructions:
            return instructions.split(": ", 1)[1], None, None
        kind, text = self.last or ("wrote", "hello is anybody there")
        if kind == "output":
            return (text.split(":", 1)[0] if text.startswith("Error") else text), None, None
        if kind == "wrote" and "telephone: " in text:
            return f"You pressed {' '.join(text.split('telephone: ')[1].strip(')'))}.", None, None
        return REPLIES.get(text, (f"You said: {text}.", None, None))

    async def speak(self, id, instructions):
        output, status, details = [], "completed", None
        place = {"response_id": id, "output_index": 0}
        head = {"object": "realtime.response", "id": id, "conversation_id": "conv_1"}
        try:
            await self.send("response.created", response={**head, "status": "in_progress", "output": []})
            if self.manner == "fails" and self.responses == 1:
                error = {"type": "server_error", "code": "server_error", "message": "The server had an error."}
                status, details = "failed", {"type": "failed", "error": error}
                return
            text, function, arguments = self.reply(instructions)
            self.entry["said"].append(text)
            if text:
                whole = await self.say(id, text, output)
                if not whole:
                    status, details = "incomplete", {"type": "incomplete", "reason": "max_output_tokens"}
                    return
            if function and function in self.asked["tools"]:
                call = {"id": ident("item"), "object": "realtime.item", "type": "function_call", "name": function,
                        "call_id": ident("call"), "arguments": "", "status": "in_progress"}  # fmt: skip
                place["output_index"] = len(output)
                await self.send("response.output_item.added", **place, item=call)
                call = {**call, "arguments": json.dumps(arguments), "status": "completed"}
                self.calls.append(call["call_id"])
                named = {**place, "item_id": call["id"], "call_id": call["call_id"]}
                await self.send("response.function_call_arguments.delta", **named, delta=call["arguments"])
                # In preview the name was only in the item.
                more = {} if self.beta else {"name": function}
                await self.send("response.function_call_arguments.done", **named, **more, arguments=call["arguments"])
                output.append(call)
                await self.send("response.output_item.done", **place, item=call)
        except asyncio.CancelledError as why:
            status, details = "cancelled", {"type": "cancelled", "reason": str(why)}
        finally:
            self.response = None
            done = {**head, "status": status, "status_details": details, "output": output}
            await self.send("response.done", response=done)
            limits = [{"name": "requests", "limit": 100, "remaining": 99, "reset_seconds": 0.6}]
            await self.send("rate_limits.updated", rate_limits=limits)

    async def say(self, id, text, output):
        form = pcm(24_000) if self.manner == "pcm" or self.asked["output"] == "audio/pcm" else mulaw(8_000)
        audio = await asyncio.to_thread(encoded, text, "rms", form)
        per_ms = 48 if "24000" in form else 8
        item = {"id": ident("item"), "object": "realtime.item", "type": "message", "role": "assistant",
                "status": "in_progress", "content": []}  # fmt: skip
        whole = {"response_id": id, "output_index": len(output)}
        place = {**whole, "item_id": item["id"], "content_index": 0}
        part = {"type": "audio", "transcript": ""}
        self.items[item["id"]] = 0
        await self.send("response.output_item.added", **whole, item=item)
        await self.send("response.content_part.added", **place, part=part)
        words, pieces = text.split(" "), range(0, len(audio), CHUNK * per_ms)
        told = 0
        late = 0
        try:
            for number, at in enumerate(pieces):
                if self.manner in ("cut", "dies") and number == 5 and (self.entry["number"] == 0 or self.manner == "dies"):
                    self.ws.transport.abort()
                if self.manner == "garbage" and number in (1, 3):
                    await self.ws.send("this is no event" if number == 1 else '{"type":"response.output_audio.delta","delta":"***"}')
                    await self.ws.send('{"type":"response.dreamt","event_id":"event_1","dream":{"of":null}}')
                if self.manner == "incomplete" and self.responses == 1 and number == 5:
                    return False
                upto = len(words) * (number + 1) // len(pieces)
                if upto > told:
                    delta = "".join(word + " " for word in words[told:upto])
                    await self.send("response.output_audio_transcript.delta", **place, delta=delta)
                    told = upto
                piece = audio[at : at + CHUNK * per_ms]
                self.items[item["id"]] += len(piece) // per_ms
                await self.send("response.output_audio.delta", **place, delta=base64.b64encode(piece).decode())
                await asyncio.sleep(CHUNK / 1000 / PACE)
        except asyncio.CancelledError:
            # What was on its way still comes.
            at = self.items[item["id"]] * per_ms
            for late in range(LATE):
                piece = audio[at + late * CHUNK * per_ms :][: CHUNK * per_ms]
                self.items[item["id"]] += len(piece) // per_ms
                await self.send("response.output_audio.delta", **place, delta=base64.b64encode(piece).decode())
            item["status"] = "incomplete"
            raise
        finally:
            spoken = {**part, "transcript": text}
            await self.send("response.output_audio.done", **place)
            await self.send("response.output_audio_transcript.done", **place, transcript=text)
            await self.send("response.content_part.done", **place, part=spoken)
            kind = "audio" if self.beta else "output_audio"
            item = {**item, "content": [{"type": kind, "transcript": text}]}
            item["status"] = "completed" if item["status"] == "in_progress" else item["status"]
            output.append(item)
            await self.send("response.output_item.done", **whole, item=item)
        return True


async def main(port, manner=""):
    assert not manner or manner in MANNERS
    model = Model()
    model.text(np.zeros(RATE, np.int16))
    log, live = [], set()

    async def dispatch(ws, request):
        url = urlsplit(request.path)
        if url.path == "/log":
            return ws.respond(200, json.dumps(log))
        if url.path == "/break":
            for other in list(live):
                other.transport.abort()
            return ws.respond(200, json.dumps(len(live)))
        if url.path != "/v1/realtime":
            return ws.respond(404, json.dumps({"error": {"message": f"Invalid URL (GET {url.path})"}}))
        try:
            openai_api.account(request.headers.get("Authorization", ""))
        except Refusal as refusal:
            return ws.respond(refusal.status, json.dumps(refusal.body))
        ws.asked = parse_qs(url.query)
        ws.beta = request.headers.get("OpenAI-Beta") == "realtime=v1"
        return None

    async def talk(ws):
        entry = {"number": len(log), "query": ws.asked, "beta": ws.beta, "events": [], "errors": [], "heard": [],
                 "said": [], "outputs": [], "truncations": [], "committed_ms": [], "appended_ms": 0,
                 "traceparent": ws.request.headers.get("traceparent")}  # fmt: skip
        log.append(entry)
        live.add(ws)
        session = Session(ws, ws.beta, model, manner, entry)
        try:
            wanted = ws.asked.get("model", [""])[0]
            if wanted not in MODELS:
                message = f"The model `{wanted}` does not exist or you do not have access to it."
                error = {"type": "invalid_request_error", "code": "model_not_found", "message": message, "param": None}
                await session.send("error", error=error)
                return await ws.close(4000, "invalid_request_error.model_not_found")
            await session.run()
        except ConnectionClosed:
            pass
        finally:
            entry["closed"] = ws.close_code
            live.discard(ws)
            if session.response:
                session.response.cancel("gone")

    how = {"process_request": dispatch, "compression": None, "max_size": 2**20, "open_timeout": None}
    async with serve(talk, "127.0.0.1", port, **how):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
