"""The agent webhook of the legacy app: POST /agent takes what the caller said and answers a reply.

Each sentence of the table is answered in another of the ways that a real agent answers, good and
bad; any other is repeated back. A repeated Idempotency-Key gets the first answer again, once that
is there. GET /agent/log lists every request, so that a test can see what the gateway really posted.
"""

import json
import string
import threading
import time

from flask import Blueprint, Response, jsonify, request

routes = Blueprint("agent", __name__)

_lock = threading.Lock()
_log = []
_first_answer = {}  # Idempotency-Key → (status, content type, body); streams are told anew


def plain(text):
    return lambda _: Response(text, mimetype="text/plain")


def spoken_json(reply, action="none", **more):
    return lambda _: jsonify(reply=reply, action=action, **more)


def pieces(sentences):
    """Each sentence in two halves, as a model emits it: a piece never ends where a sentence does."""
    for sentence in sentences:
        middle = len(sentence) // 2
        yield sentence[:middle]
        time.sleep(0.05)
        yield sentence[middle:] + " "
        time.sleep(0.25)


def server_sent_events(*sentences):
    def events():
        yield ": thinking\n\n"
        for piece in pieces(sentences):
            yield f"data: {json.dumps({'delta': piece})}\n\n"

    return lambda _: Response(events(), mimetype="text/event-stream")


def ndjson(*sentences):
    def lines():
        for piece in pieces(sentences):
            yield json.dumps({"delta": piece}) + "\n"

    return lambda _: Response(lines(), mimetype="application/x-ndjson")


def after(seconds, answer):
    def late(asked):
        time.sleep(seconds)
        return answer(asked)

    return late


def empty(_):
    return Response(status=204)


def failure(_):
    return Response("Internal Server Error", status=500, mimetype="text/plain")


def web_page(_):
    return Response("<html><body><h1>Please log in</h1></body></html>", mimetype="text/html")


def repeat_back(asked):
    return Response(f"You said: {asked.get('text', '')}.", mimetype="text/plain")


ANSWERS = {
    "what are your opening hours tomorrow": plain("We are open from nine to five."),
    "book a table for two people": plain(
        "Of course, I can book a table for two people. "
        "We have a quiet table by the window at seven, and another one near the bar at half past eight. "
        "The kitchen closes at ten, and the terrace is open until eleven if the weather is good. "
        "Children are welcome, and there is a small car park behind the house. "
        "Which of the two would you like?"
    ),
    "please cancel my second order": spoken_json("Your second order is cancelled."),
    "i want to speak to a person": spoken_json(
        "I am putting you through.", "transfer", to="+15550100"
    ),
    "how much does the large pizza cost": server_sent_events(
        "The large pizza costs twelve euros.", "With extra cheese it is thirteen.", "Shall I order one?"
    ),
    "can you repeat that please": empty,
    "i need help with my bill": after(30, plain("This comes far too late.")),
    "move my appointment to monday morning": plain("Your appointment is now on Monday at nine."),
    "the delivery never arrived": after(1.5, plain("I am sorry. A new one is on its way.")),
    "thank you very much goodbye": spoken_json("Thank you for calling. Goodbye.", "hangup"),
    "wait i have another question": plain("Please go ahead."),
    "my internet is not working": failure,
    "yes that is correct": plain("Good. Then it is settled."),
    "no that is wrong": web_page,
    "hello is anybody there": plain("Yes, I am here."),
    "call me back on monday at three": spoken_json(
        "I am pressing the keys.", "send_digits", digits="1w23#"
    ),
    "call me back on friday at four": spoken_json(
        "Please key in your number.", "gather", num_digits=2, finish_on_key="*", timeout=9
    ),
    "send me the invoice by email": ndjson(
        "I am sending you the invoice now.", "It will be there in a minute."
    ),
}


def in_table(text):
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return ANSWERS.get(" ".join(bare.split()), repeat_back)


@routes.post("/agent")
def agent():
    asked = request.get_json(force=True, silent=True)
    key = request.headers.get("Idempotency-Key")
    with _lock:
        repeat = key is not None and any(entry["idempotency_key"] == key for entry in _log)
        _log.append(
            {
                "at": time.time(),
                "body": asked,
                "idempotency_key": key,
                "repeat": repeat,
                "headers": dict(request.headers),
            }
        )
        known = _first_answer.get(key)
    if not isinstance(asked, dict):
        return Response("a JSON object is wanted", status=400, mimetype="text/plain")
    if known:
        status, content_type, body = known
        return Response(body, status, {"Idempotency-Replayed": "true"}, content_type=content_type)
    answer = in_table(asked.get("text", ""))(asked)
    if key and not answer.is_streamed and answer.status_code < 500:
        with _lock:
            _first_answer[key] = (answer.status_code, answer.content_type, answer.get_data())
    return answer


TEN = [f"Number {word}." for word in "one two three four five six seven eight nine ten".split()]
_ten_written = []
_ten_go = threading.Event()


@routes.post("/agent/ten")
def ten():
    """Ten sentences, of which the second is not written before GET /agent/ten/go."""

    def events():
        for sentence in TEN:
            if _ten_written:
                _ten_go.wait(60)
            _ten_written.append(sentence)
            # The blank behind it is what tells that it is complete.
            yield f"data: {json.dumps({'delta': sentence + ' '})}\n\n"

    return Response(events(), mimetype="text/event-stream")


@routes.get("/agent/ten/written")
def ten_written():
    return f"{len(_ten_written)}\n"


@routes.get("/agent/ten/go")
def ten_go():
    """How many had been written."""
    written = len(_ten_written)
    _ten_go.set()
    return f"{written}\n"


@routes.get("/agent/log")
def log():
    with _lock:
        return jsonify(_log)
