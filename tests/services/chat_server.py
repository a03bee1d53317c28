"""A language model: `chat_server.py PORT` answers OpenAI's `POST /v1/chat/completions` as its reference
has it, streamed or whole, with replies by what the caller said last.

What the vendor would refuse is refused here, in its own words for programs, and so is every field that
the reference does not name. The account is decided by the key, as in openai_api.py. GET /log lists
every request with what was asked.
"""

import json
import re
import string
import sys
import time
from urllib.parse import urlsplit

import openai_api
from loopback import Log, Service, serve
from vendor import Misfit, Refusal, as_json, number, only

FIELDS = {
    "model", "messages", "stream", "stream_options", "temperature", "top_p", "n", "stop", "max_tokens",
    "max_completion_tokens", "reasoning_effort", "tools", "tool_choice", "parallel_tool_calls", "user", "seed",
}  # fmt: skip
MODELS = {"gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-4o-mini"}
THINKING = {"gpt-5.4", "gpt-5.4-mini"}

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
    "wait i have another question": ("Please go ahead.", None, None),
    "thank you very much goodbye": ("Thank you for calling. Goodbye.", "hangup", {}),
    "please cancel my second order": ("", "hangup", {}),
    "i want to speak to a person": ("", "transfer", {"to": "+15550100"}),
    "move my appointment to monday morning": ("One moment. ", "move_appointment", {"day": "Monday"}),
}
# After these functions were called, and with no text yet.
AFTERWARDS = {"hangup": "Goodbye.", "transfer": "I am putting you through."}


def check(asked):
    only(asked, FIELDS)
    if not isinstance(asked.get("model"), str):
        raise Misfit("model", "you must provide a model parameter")
    if asked["model"] not in MODELS | THINKING:
        raise openai_api.no_such_model(asked["model"])
    thinks = asked["model"] in THINKING
    for name, needed in (("max_tokens", False), ("reasoning_effort", True)):
        if name in asked and thinks != needed:
            raise unsupported(name)
    if thinks and asked.get("temperature", 1) != 1:
        raise unsupported("temperature")
    if "max_tokens" in asked and "max_completion_tokens" in asked:
        raise unsupported("max_tokens")
    for name in ("max_tokens", "max_completion_tokens"):
        if name in asked and (not isinstance(asked[name], int) or asked[name] < 1):
            raise Misfit(name, f"{name} is a whole number from 1")
    number(asked.get("temperature", 1), "temperature", 0, 2)
    if not isinstance(asked.get("stream", False), bool):
        raise Misfit("stream", "true or false is wanted")
    if "stream_options" in asked and not asked.get("stream"):
        raise Misfit("stream_options", "only with stream: true")
    for tool in asked.get("tools", ()):
        function = tool.get("function", {})
        if tool.get("type") != "function" or set(tool) != {"type", "function"}:
            raise Misfit("tools", "a tool has a type and a function")
        only(function, {"name", "description", "parameters", "strict"})
        if not re.fullmatch("[a-zA-Z0-9_-]{1,64}", function.get("name", "")):
            raise Misfit("tools", "a function has a name of letters, digits, _ and -")
        if function.get("parameters", {"type": "object"}).get("type") != "object":
            raise Misfit("tools", "parameters are a JSON schema of an object")
    if asked.get("tools") == []:
        raise Misfit("tools", "an empty list: leave it out")
    messages(asked.get("messages"))


def messages(given):
    if not isinstance(given, list) or not given:
        raise Misfit("messages", "one message or more is wanted")
    unanswered = []
    for place, message in enumerate(given):
        where = f"messages.[{place}]"
        role, content = message.get("role"), message.get("content")
        if unanswered and role != "tool":
            raise Misfit(where, f"an answer to {unanswered[0]} is wanted first")
        if role in ("system", "developer", "user"):
            only(message, {"role", "content", "name"})
        elif role == "assistant":
            only(message, {"role", "content", "tool_calls", "name", "refusal"})
            for call in message.get("tool_calls", ()):
                if set(call) != {"id", "type", "function"} or call["type"] != "function":
                    raise Misfit(where, "a call has an id, a type and a function")
                if not all(isinstance(call["function"].get(name), str) for name in ("name", "arguments")):
                    raise Misfit(where, "a function has a name and arguments, both texts")
                unanswered.append(call["id"])
            if len(unanswered) != len(set(unanswered)):
                raise Misfit(where, "two calls with the same id")
            if content is None and unanswered:
                continue
        elif role == "tool":
            only(message, {"role", "content", "tool_call_id"})
            if message.get("tool_call_id") not in unanswered:
                raise Misfit(where, "an answer to a call that nobody made")
            unanswered.remove(message["tool_call_id"])
        else:
            raise Misfit(where, f"no such role: {role!r}")
        if not isinstance(content, str) or not content:
            raise Misfit(where, "a text is wanted")
    if unanswered:
        raise Misfit("messages", f"{unanswered[0]} was not answered")


def unsupported(name):
    return openai_api.error(
        400, f"Unsupported parameter: '{name}' is not for this model.", name, "unsupported_parameter"
    )


def reply(asked):
    """The text, and the function to call with its arguments."""
    last = asked["messages"][-1]
    if last["role"] == "tool":
        calls = [m for m in asked["messages"] if m["role"] == "assistant"][-1]["tool_calls"]
        if last["content"].startswith("Error"):
            return "That did not work.", None, None
        return AFTERWARDS.get(calls[-1]["function"]["name"], "Done."), None, None
    said = last["content"].lower().translate(str.maketrans("", "", string.punctuation))
    return REPLIES.get(" ".join(said.split()), (f"You said: {last['content']}.", None, None))


class Chat(Service):
    log = Log()
    count = 0

    def do_POST(self):
        body, entry = self.read_body(), {"path": urlsplit(self.path).path}
        entry["headers"] = {name.lower(): value for name, value in self.headers.items()}
        try:
            if entry["path"] != "/v1/chat/completions":
                message = f"Invalid URL (POST {entry['path']})"
                raise openai_api.error(404, message)
            openai_api.account(self.headers.get("Authorization", ""))
            try:
                asked = as_json(self.headers, body)
                entry["asked"] = asked
                check(asked)
            except Misfit as misfit:
                raise openai_api.error(400, misfit.why, misfit.where, "invalid_value") from None
        except Refusal as refusal:
            self.log.add(**entry, status=refusal.status, said=refusal.body)
            return self.answer_json(refusal.status, refusal.body)
        self.log.add(**entry, status=200)
        Chat.count += 1
        text, function, arguments = reply(asked)
        offered = [tool["function"]["name"] for tool in asked.get("tools", ())]
        # A model may well call what it was not offered; one that was offered nothing does not.
        calls = [(f"call_{Chat.count}", function, arguments)] if function and offered else []
        if asked.get("stream"):
            self.answer_stream("text/event-stream; charset=utf-8", self.events(asked, text, calls))
        else:
            self.answer_json(200, self.whole(asked, text, calls))

    def head(self, asked, kind):
        created = int(time.time())
        return {"id": f"chatcmpl-{Chat.count}", "object": kind, "created": created, "model": asked["model"]}

    def whole(self, asked, text, calls):
        message = {"role": "assistant", "content": text or None, "refusal": None}
        if calls:
            message["tool_calls"] = [call(*one) for one in calls]
        finish = "tool_calls" if calls else "stop"
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {**self.head(asked, "chat.completion"), "choices": [choice], "usage": usage(text)}

    def events(self, asked, text, calls):
        head = self.head(asked, "chat.completion.chunk")
        with_usage = asked.get("stream_options", {}).get("include_usage", False)

        def event(choices, **more):
            if with_usage:
                more = {"usage": None, **more}
            return f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n".encode()

        def chunk(delta, finish=None):
            return event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

        yield chunk({"role": "assistant", "content": "" if text else None, "refusal": None})
        for piece in re.findall(r"\s*\S{1,5}", text) + [" " * (len(text) - len(text.rstrip()))]:
            if piece:
                yield chunk({"content": piece})
        for index, (name, function, arguments) in enumerate(calls):
            whole = call(name, function, arguments)
            pieces, whole["function"]["arguments"] = whole["function"]["arguments"], ""
            yield chunk({"tool_calls": [{"index": index, **whole}]})
            for at in range(0, len(pieces), 3):
                piece = {"index": index, "function": {"arguments": pieces[at : at + 3]}}
                yield chunk({"tool_calls": [piece]})
        yield chunk({}, "tool_calls" if calls else "stop")
        if with_usage:
            yield event([], usage=usage(text))
        yield b"data: [DONE]\n\n"


def call(name, function, arguments):
    return {
        "id": name,
        "type": "function",
        "function": {"name": function, "arguments": json.dumps(arguments)},
    }


def usage(text):
    written = len(text.split()) + 1
    return {"prompt_tokens": 9, "completion_tokens": written, "total_tokens": 9 + written}


if __name__ == "__main__":
    serve(Chat, int(sys.argv[1]))
