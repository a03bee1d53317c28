"""A ConversationRelay app as people write them: `relay_app.py PORT` answers Twilio's `prompt`s with
tokens, stops at an `interrupt`, and knows nothing of voxgate.

It is strict about what it is told: exactly the fields that Twilio documents, `setup` first and once. A
message that is not right is logged as `wrong` and ends the socket with 1003. It speaks first, pushes a
word of its own where it is asked to, and loses its socket where a caller complains of the internet.
GET /log lists what it was told, socket by socket.
"""

import asyncio
import http
import json
import re
import sys
import time

from websockets.asyncio.server import serve

from parent_watch import end_with_parent

WELCOME = "hello is anybody there"
LONG = (
    "Of course, I can book a table for two people. "
    "We have a quiet table by the window at seven, and another one near the bar at half past eight. "
    "The kitchen closes at ten, and the terrace is open until eleven if the weather is good."
)
REPLIES = {
    "what are your opening hours tomorrow": "Yes, that is correct.",
    "book a table for two people": LONG,
    "wait i have another question": "Please go ahead.",
    "thank you very much goodbye": "Thank you for calling. Goodbye.",
}
SETUP = {
    "sessionId": r"VX[0-9a-f]{32}", "accountSid": r"AC.+", "parentCallSid": r".*", "callSid": r"CA.+",
    "from": r"\+?\d*", "to": r"\+?\d*", "forwardedFrom": r".*", "callerName": r".*",
    "direction": r"inbound", "callType": r"PSTN", "callStatus": r"RINGING",
}  # fmt: skip

log = []


def wrong(told):
    """What is wrong with a message, if anything."""
    kind, fields = told.get("type"), {name: value for name, value in told.items() if name != "type"}
    match kind:
        case "setup":
            parameters = fields.pop("customParameters", None)
            if not isinstance(parameters, dict) or not all(isinstance(v, str) for v in parameters.values()):
                return "customParameters is a map of texts"
            if fields.keys() != SETUP.keys():
                return f"fields {sorted(fields.keys() ^ SETUP.keys())}"
            odd = [name for name, form in SETUP.items() if not re.fullmatch(form, fields[name])]
            return f"odd {odd}" if odd else None
        case "prompt":
            good = fields.keys() == {"voicePrompt", "lang", "last"} and fields["voicePrompt"].strip()
            return None if good and fields["lang"] == "en-US" and fields["last"] is True else "no prompt"
        case "dtmf":
            good = fields.keys() == {"digit"} and re.fullmatch("[0-9*#A-D]", fields["digit"])
            return None if good else "no digit"
        case "interrupt":
            names = {"utteranceUntilInterrupt", "durationUntilInterruptMs"}
            good = fields.keys() == names and isinstance(fields["durationUntilInterruptMs"], int)
            return None if good else "no interrupt"
    return f"no such type: {kind!r}"


class Call:
    def __init__(self, socket, number):
        self.socket, self.number, self.speaking = socket, number, None

    def note(self, told, **more):
        log.append({"at": time.time(), "socket": self.number, **told, **more})

    async def say(self, text):
        words = text.split(" ")
        for place, word in enumerate(words):
            last = place == len(words) - 1
            token = word if last else f"{word} "
            message = {"type": "text", "token": token, "last": last, "lang": "en-US"}
            await self.socket.send(json.dumps({**message, "interruptible": True, "preemptible": False}))

    def start(self, what):
        if self.speaking:
            self.speaking.cancel()
        self.speaking = asyncio.create_task(what)

    async def goodbye(self, text):
        await self.say(text)
        await self.socket.send(json.dumps({"type": "end", "handoffData": '{"reason":"done"}'}))

    async def told(self, message):
        match message["type"]:
            case "setup":
                self.start(self.say(WELCOME))
            case "prompt":
                text = message["voicePrompt"]
                if text == "my internet is not working":
                    self.socket.transport.abort()
                elif text == "thank you very much goodbye":
                    self.start(self.goodbye(REPLIES[text]))
                else:
                    self.start(self.say(REPLIES.get(text, f"You said: {text}.")))
            case "dtmf":
                self.start(self.say(f"You pressed {message['digit']}."))
            case "interrupt":
                if self.speaking:
                    self.speaking.cancel()


sockets = 0


async def serve_call(socket):
    global sockets
    sockets += 1
    call, first = Call(socket, sockets), True
    async for text in socket:
        message = json.loads(text)
        fault = wrong(message)
        if (message.get("type") == "setup") != first:
            fault = "setup comes first, and once"
        first = False
        more = {"traceparent": socket.request.headers.get("traceparent")} if message.get("type") == "setup" else {}
        call.note(message, **more, **({"wrong": fault} if fault else {}))
        if fault:
            return await socket.close(1003, fault)
        await call.told(message)
    call.note({"type": "closed", "code": socket.close_code})


def plain_http(connection, request):
    if request.path == "/log":
        return connection.respond(http.HTTPStatus.OK, json.dumps(log))
    if request.path.split("?")[0] != "/ws":
        return connection.respond(http.HTTPStatus.NOT_FOUND, "no such page\n")
    return None


async def main(port):
    async with serve(serve_call, "127.0.0.1", port, process_request=plain_http) as server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    end_with_parent()
    asyncio.run(main(int(sys.argv[1])))
