"""Deepgram's own Python client judges the fake of its live recognition: `judge_listen.py PORT` has
`deepgram-sdk` open streams, speak, and read what comes back into its own types.

Prints one line a finding, and exits 1 if one is wrong.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time

from deepgram import DeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v1.types import ListenV1Metadata, ListenV1Results, ListenV1UtteranceEnd
from websockets.exceptions import InvalidStatus

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = "please cancel my second order"
ASKED = {
    "model": "nova-3", "encoding": "mulaw", "sample_rate": 8000, "channels": 1, "interim_results": "true",
    "punctuate": "true", "smart_format": "false", "language": "en",
}  # fmt: skip
findings = []


def finding(name, seen, wanted):
    findings.append(seen == wanted)
    print(f"{'ok   ' if seen == wanted else 'WRONG'} {name}: {seen!r}" + ("" if seen == wanted else f", not {wanted!r}"))


def spoken():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "said.wav")
        subprocess.run([os.path.join(HERE, "speak.sh"), WORDS, path], check=True)
        command = ["sox", "-D", path, *"-t raw -r 8000 -c 1 -b 8 -e mu-law -".split()]
        return subprocess.run(command, check=True, capture_output=True).stdout


def client(port, key="dg-test"):
    here = f"127.0.0.1:{port}"
    where = DeepgramClientEnvironment(
        base=f"http://{here}", production=f"ws://{here}", agent=f"ws://{here}", agent_rest=f"http://{here}"
    )
    return DeepgramClient(api_key=key, environment=where)


def stream(port, speak, key="dg-test", **asked):
    """All that the client made of what came, while `speak` spoke."""
    came, problems = [], []
    with client(port, key).listen.v1.connect(**{**ASKED, **asked}) as connection:
        connection.on(EventType.MESSAGE, came.append)
        connection.on(EventType.ERROR, problems.append)
        listening = threading.Thread(target=connection.start_listening)
        listening.start()
        speak(connection, came)
        listening.join(20)
        finding("  the stream ends", listening.is_alive(), False)
    return came, problems


def wait_for(came, what):
    deadline = time.monotonic() + 20
    while not any(what(message) for message in list(came)) and time.monotonic() < deadline:
        time.sleep(0.01)


def talk(connection, audio):
    for at in range(0, len(audio), 800):
        connection.send_media(audio[at : at + 800])


def texts(came, **flags):
    results = [m for m in came if isinstance(m, ListenV1Results)]
    results = [r for r in results if all(getattr(r, flag) is wanted for flag, wanted in flags.items())]
    return [r.channel.alternatives[0].transcript for r in results if r.channel.alternatives[0].transcript]


def judge_finalize(port, audio):
    def speak(connection, came):
        connection.send_keep_alive()
        talk(connection, audio)
        connection.send_finalize()
        wait_for(came, lambda m: getattr(m, "from_finalize", False))
        connection.send_close_stream()

    came, problems = stream(port, speak, endpointing="false")
    finding("finalize has the words out", texts(came, is_final=True, from_finalize=True), [WORDS])
    guesses = texts(came, is_final=False)
    finding("interim results lead there", bool(guesses) and WORDS.startswith(guesses[0].split()[0]), True)
    finding("metadata is the last", isinstance(came[-1], ListenV1Metadata), True)
    finding("no problems", problems, [])


def judge_end(port, audio):
    def speak(connection, came):
        talk(connection, audio + b"\xff" * 8000 * 2)
        wait_for(came, lambda m: isinstance(m, ListenV1UtteranceEnd))
        connection.send_close_stream()

    came, _ = stream(port, speak, endpointing="300", utterance_end_ms="1000")
    finding("silence ends speech", texts(came, speech_final=True), [WORDS])
    ends = [m for m in came if isinstance(m, ListenV1UtteranceEnd)]
    finding("and the utterance, once", len(ends), 1)
    finding("where the words end", 0 < ends[0].last_word_end <= len(audio) / 8000 + 0.1, True)
    finals = [m for m in came if isinstance(m, ListenV1Results) and m.is_final]
    gaps = [b.start - (a.start + a.duration) for a, b in zip(finals, finals[1:])]
    finding("final results leave no gap", max(map(abs, gaps), default=0) < 0.001, True)


def judge_refusals(port):
    for name, status, key, asked in [
        ("a wrong key", 401, "wrong", {}),
        ("an unknown model", 400, "dg-test", {"model": "hearing-aid"}),
        ("an unknown parameter", 400, "dg-test", {"dictation": "true"}),
        ("an utterance end that is too soon", 400, "dg-test", {"utterance_end_ms": "500"}),
        ("no rate", 400, "dg-test", {"sample_rate": None}),
    ]:
        try:
            with client(port, key).listen.v1.connect(**{**ASKED, **asked}):
                finding(name, "accepted", status)
        except InvalidStatus as refused:
            finding(name, refused.response.status_code, status)

    def nonsense(connection, _):
        connection._websocket.send('{"type":"Hello"}')

    _, problems = stream(port, nonsense)
    finding("a message that is none", closed_with(problems)[:1], (1008,))


def judge_silence(port):
    _, problems = stream(port, lambda connection, came: connection.send_keep_alive())
    code, why = closed_with(problems)
    finding("ten seconds of nothing", (code, why[:8]), (1011, "NET-0001"))


def closed_with(problems):
    closed = problems[0].rcvd if problems else None
    return (closed.code, closed.reason) if closed else (None, "")


if __name__ == "__main__":
    said = spoken()
    judge_finalize(sys.argv[1], said)
    judge_end(sys.argv[1], said)
    judge_refusals(sys.argv[1])
    judge_silence(sys.argv[1])
    sys.exit(0 if all(findings) else 1)
