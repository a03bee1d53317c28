"""OpenAI's own client judges the fake: `judge_chat.py URL` has `openai` ask chat_server.py as it would
ask OpenAI. Prints one line a finding, and exits 1 if one is wrong."""

import sys

import openai

findings = []


def finding(name, seen, wanted):
    findings.append(seen == wanted)
    verdict, but = ("ok   ", "") if seen == wanted else ("WRONG", f", not {wanted!r}")
    print(f"{verdict} {name}: {seen!r}{but}")


def client(key="sk-test"):
    return openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key=key, max_retries=0, timeout=60)


def user(text):
    return {"role": "user", "content": text}


def tool(name, **properties):
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}


TOOLS = [tool("hangup"), tool("transfer", to={"type": "string"})]


def create(*messages, key="sk-test", model="gpt-4.1-mini", **more):
    return client(key).chat.completions.create(model=model, messages=list(messages), **more)


def refused(name, error, see, wanted, *messages, **more):
    try:
        create(*messages, **more)
    except error as caught:
        finding(name, see(caught), wanted)
    else:
        finding(name, "no error", wanted)


# ---- what is answered
whole = create(user("what are your opening hours tomorrow"))
finding("whole text", whole.choices[0].message.content, "Yes, that is correct.")
finding("whole finish", whole.choices[0].finish_reason, "stop")
finding("whole usage", whole.usage.total_tokens > whole.usage.completion_tokens, True)

said, finish, usage = "", [], []
options = {"stream_options": {"include_usage": True}}
for chunk in create(user("thank you very much goodbye"), stream=True, tools=TOOLS, **options):
    usage += [chunk.usage] if chunk.usage else []
    for choice in chunk.choices:
        said += choice.delta.content or ""
        finish += [choice.finish_reason] if choice.finish_reason else []
finding("streamed text", said, "Thank you for calling. Goodbye.")
finding("streamed finish", finish, ["tool_calls"])
finding("one chunk of usage, with no choice", [u.prompt_tokens for u in usage], [9])

# The client's own assembly of a stream.
with client().chat.completions.stream(
    model="gpt-4.1-mini", messages=[user("i want to speak to a person")], tools=TOOLS
) as stream:
    message = stream.get_final_completion().choices[0].message
call = message.tool_calls[0]
finding("called function", (call.type, call.function.name), ("function", "transfer"))
finding("its arguments", call.function.arguments, '{"to": "+15550100"}')
finding("no text", message.content, None)
assistant = {"role": "assistant", "content": None, "tool_calls": [call.to_dict()]}
assistant["tool_calls"][0] = {
    "id": call.id,
    "type": "function",
    "function": {"name": call.function.name, "arguments": call.function.arguments},
}
answer = {"role": "tool", "tool_call_id": call.id, "content": "Done."}
question = user("i want to speak to a person")
after = create(question, assistant, answer, tools=TOOLS)
finding("after the call", after.choices[0].message.content, "I am putting you through.")
thought = create(user("hi"), model="gpt-5.4-mini", reasoning_effort="low", max_completion_tokens=99)
finding("a model that thinks", thought.choices[0].message.content, "You said: hi.")

# ---- what is refused
code = lambda error: (error.status_code, error.code)  # noqa: E731
param = lambda error: (error.status_code, error.param)  # noqa: E731
hi = user("hi")
refused("a wrong key", openai.AuthenticationError, code, (401, "invalid_api_key"), hi, key="sk-wrong")
refused("too often", openai.RateLimitError, code, (429, "rate_limit_exceeded"), hi, key="sk-limited")
refused("no credit", openai.RateLimitError, code, (429, "insufficient_quota"), hi, key="sk-broke")
refused("out of order", openai.InternalServerError, lambda e: e.status_code, 503, hi, key="sk-down")
refused("no such model", openai.NotFoundError, code, (404, "model_not_found"), hi, model="gpt-0")
bad = openai.BadRequestError
refused("no messages", bad, param, (400, "messages"))
refused("an unknown field", bad, param, (400, "speed"), hi, extra_body={"speed": 1})
refused("a wrong role", bad, param, (400, "messages.[0]"), {"role": "bot", "content": "hi"})
refused("an empty text", bad, param, (400, "messages.[0]"), user(""))
refused("an answer to no call", bad, param, (400, "messages.[1]"), hi, answer)
refused("a call without an answer", bad, param, (400, "messages"), hi, assistant)
refused("too hot", bad, param, (400, "temperature"), hi, temperature=3)
refused("two limits", bad, param, (400, "max_tokens"), hi, max_tokens=9, max_completion_tokens=9)
refused("an old limit", bad, code, (400, "unsupported_parameter"), hi, model="gpt-5.4", max_tokens=9)
refused("no tools", bad, param, (400, "tools"), hi, tools=[])
refused("a tool without a name", bad, param, (400, "tools"), hi, tools=[tool("")])

sys.exit(0 if all(findings) else 1)
