"""The vendors' own clients judge the fakes: `judge_vendors.py URL` has `openai`, `elevenlabs` and
`deepgram` ask vendors.py as they would ask the vendors themselves.

Each format has to be the sound that it says it is, with the words that were to be spoken (they are
given to the fake's own transcription, through the OpenAI client); each refusal has to arrive as the
client's own error, with the vendor's word for it where the client looks for it. Prints one line a
finding, and exits 1 if one is wrong.
"""

import os
import subprocess
import sys
import tempfile

import elevenlabs
import openai
from deepgram import DeepgramClient
from deepgram.core.api_error import ApiError as DeepgramError
from deepgram.environment import DeepgramClientEnvironment
from elevenlabs.core.api_error import ApiError as ElevenLabsError

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = "please cancel my second order"
OWN = subprocess.run(
    "flite -voice rms -o /dev/stdout -t".split() + [WORDS], check=True, capture_output=True
).stdout
findings = []


def finding(name, seen, wanted):
    findings.append(seen == wanted)
    print(
        f"{'ok   ' if seen == wanted else 'WRONG'} {name}: {seen!r}"
        + ("" if seen == wanted else f", not {wanted!r}")
    )


def refused(name, error, ask, see, wanted):
    """`ask` has to fail in this way, and `see` shows of the error what is `wanted`."""
    try:
        ask()
    except error as caught:
        finding(name, see(caught), wanted)
    else:
        finding(name, "no error", wanted)


def as_wav(audio, *options):
    """What these bytes are, as sox reads them with these options, at the recogniser's rate."""
    command = ["sox", "-D", "-V1", *options, "-", *"-t wav -r 16000 -c 1 -b 16".split(), "-"]
    return subprocess.run(command, input=audio, check=True, capture_output=True).stdout


def openai_client(url, key="sk-test"):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)


def heard(url, wav):
    client = openai_client(url)
    return client.audio.transcriptions.create(
        model="gpt-transcribe", file=("it.wav", wav, "audio/wav")
    ).text


def judge_speech(name, url, audio, reader):
    """The words, and that they take as long as the same voice takes in its own format: a wrong rate
    is no obstacle to the recogniser."""
    wav = as_wav(audio, *reader)
    is_as_long = abs(len(wav) / len(OWN) - 1) < 0.03
    finding(name, (heard(url, wav), is_as_long), (WORDS, True))


def judge_transcription(url):
    client = openai_client(url)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "said.wav")
        subprocess.run([os.path.join(HERE, "speak.sh"), WORDS, path], check=True)
        with open(path, "rb") as file:
            wav = file.read()
    said = client.audio.transcriptions.create(
        model="whisper-1",
        file=("said.wav", wav),
        language="en",
        prompt="orders",
        temperature=0,
        response_format="json",
    )
    finding("openai hears a WAV of 8 kHz", said.text, WORDS)
    for kind in ("flac", "mp3"):
        audio = subprocess.run(
            ["sox", "-D", "-t", "wav", "-", "-t", kind, "-r", "16000", "-"],
            input=wav,
            check=True,
            capture_output=True,
        ).stdout
        said = client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=(f"said.{kind}", audio)
        )
        finding(f"openai hears {kind}", said.text, WORDS)

    def ask(key="sk-test", **changed):
        asked = {"model": "gpt-transcribe", "file": ("said.wav", wav), **changed}
        return lambda: openai_client(url, key).audio.transcriptions.create(**asked)

    code = lambda caught: (caught.status_code, caught.code)  # noqa: E731
    param = lambda caught: (caught.status_code, caught.param)  # noqa: E731
    refused(
        "openai: a wrong key",
        openai.AuthenticationError,
        ask("sk-wrong"),
        code,
        (401, "invalid_api_key"),
    )
    refused(
        "openai: no such model",
        openai.NotFoundError,
        ask(model="nova-3"),
        code,
        (404, "model_not_found"),
    )
    refused(
        "openai: a language by name",
        openai.BadRequestError,
        ask(language="english"),
        param,
        (400, "language"),
    )
    refused(
        "openai: too hot", openai.BadRequestError, ask(temperature=1.5), param, (400, "temperature")
    )
    refused(
        "openai: no WAV",
        openai.BadRequestError,
        ask(file=("a.wav", b"RIFFoops")),
        param,
        (400, "file"),
    )
    refused("openai: no ending", openai.BadRequestError, ask(file=("a", wav)), param, (400, "file"))
    short = ask(file=("a.wav", wav[:44] + wav[8000:9000]))
    refused("openai: too short", openai.BadRequestError, short, code, (400, "audio_too_short"))
    wait = lambda caught: (caught.status_code, caught.response.headers["retry-after"])  # noqa: E731
    refused("openai: too often", openai.RateLimitError, ask("sk-limited"), wait, (429, "20"))
    refused(
        "openai: no credit",
        openai.RateLimitError,
        ask("sk-broke"),
        code,
        (429, "insufficient_quota"),
    )
    refused(
        "openai: out of order",
        openai.InternalServerError,
        ask("sk-down"),
        lambda c: c.status_code,
        503,
    )


def judge_openai_speech(url):
    client = openai_client(url)
    readers = {
        "pcm": "-t raw -r 24000 -c 1 -b 16 -e signed -L".split(),
        "wav": ["-t", "wav"],
        "mp3": ["-t", "mp3"],
        "flac": ["-t", "flac"],
    }
    for name, reader in readers.items():
        asked = {
            "model": "gpt-4o-mini-tts",
            "voice": "alloy",
            "input": WORDS,
            "response_format": name,
        }
        with client.audio.speech.with_streaming_response.create(**asked) as answer:
            audio = b"".join(answer.iter_bytes())
        judge_speech(f"openai speaks {name}", url, audio, reader)

    def ask(**changed):
        asked = {
            "model": "tts-1",
            "voice": "alloy",
            "input": WORDS,
            "response_format": "pcm",
            **changed,
        }
        return lambda: client.audio.speech.create(**asked)

    param = lambda caught: (caught.status_code, caught.param)  # noqa: E731
    refused(
        "openai: no such voice", openai.BadRequestError, ask(voice="rachel"), param, (400, "voice")
    )
    refused("openai: nothing to say", openai.BadRequestError, ask(input=""), param, (400, "input"))
    refused("openai: too fast", openai.BadRequestError, ask(speed=5), param, (400, "speed"))
    refused(
        "openai: opus",
        openai.BadRequestError,
        ask(response_format="opus"),
        param,
        (400, "response_format"),
    )
    unknown = ask(extra_body={"voice_id": "x"})
    refused(
        "openai: an unknown parameter", openai.BadRequestError, unknown, param, (400, "voice_id")
    )
    no_model = ask(model="eleven_v3")
    refused(
        "openai: no such model to speak",
        openai.NotFoundError,
        no_model,
        lambda c: c.code,
        "model_not_found",
    )


def judge_elevenlabs(url):
    def ask(key="el-test", voice_id="JBFqnCBsd6RMkjVDRZzb", **changed):
        asked = {
            "text": WORDS,
            "model_id": "eleven_flash_v2_5",
            "output_format": "ulaw_8000",
            **changed,
        }
        client = elevenlabs.ElevenLabs(base_url=url, api_key=key, timeout=60)
        return lambda: b"".join(client.text_to_speech.stream(voice_id, **asked))

    settings = elevenlabs.VoiceSettings(
        stability=0.5, similarity_boost=0.75, style=0.0, speed=1.0, use_speaker_boost=True
    )
    readers = {
        "ulaw_8000": "-t raw -r 8000 -c 1 -b 8 -e mu-law".split(),
        "pcm_16000": "-t raw -r 16000 -c 1 -b 16 -e signed -L".split(),
        "mp3_44100_128": ["-t", "mp3"],
    }
    for name, reader in readers.items():
        audio = ask(
            output_format=name,
            voice_settings=settings,
            language_code="en",
            optimize_streaming_latency=1,
        )()
        judge_speech(f"elevenlabs speaks {name}", url, audio, reader)

    word = lambda caught: (caught.status_code, caught.body["detail"]["status"])  # noqa: E731
    place = lambda caught: (caught.status_code, caught.body["detail"][0]["loc"])  # noqa: E731
    for name, asked, see, wanted in [
        ("a wrong key", ask("el-wrong"), word, (401, "invalid_api_key")),
        ("no such voice", ask(voice_id="alloy"), word, (404, "voice_not_found")),
        ("no such model", ask(model_id="tts-1"), word, (400, "model_not_found")),
        (
            "no such format",
            ask(output_format="ulaw_16000"),
            place,
            (422, ["query", "output_format"]),
        ),
        ("nothing to say", ask(text=""), place, (422, ["body", "text"])),
        (
            "too fast",
            ask(voice_settings=elevenlabs.VoiceSettings(speed=3.0)),
            place,
            (422, ["body", "voice_settings", "speed"]),
        ),
        ("no credit", ask("el-broke"), word, (401, "quota_exceeded")),
    ]:
        refused(f"elevenlabs: {name}", (ElevenLabsError,), asked, see, wanted)


def judge_deepgram(url):
    at = DeepgramClientEnvironment(base=url, production=url, agent=url, agent_rest=url)

    def ask(key="dg-test", **changed):
        asked = {"text": WORDS, "model": "aura-2-thalia-en", **changed}
        client = DeepgramClient(api_key=key, environment=at, timeout=60)
        options = {"max_retries": 0}
        return lambda: b"".join(client.speak.v1.audio.generate(**asked, request_options=options))

    for name, asked, reader in [
        (
            "mulaw without a container",
            {"encoding": "mulaw", "sample_rate": 8000, "container": "none"},
            "-t raw -r 8000 -c 1 -b 8 -e mu-law".split(),
        ),
        ("mulaw", {"encoding": "mulaw"}, ["-t", "wav"]),
        ("linear16", {"encoding": "linear16", "sample_rate": 16000, "speed": 1.0}, ["-t", "wav"]),
        ("flac", {"encoding": "flac"}, ["-t", "flac"]),
        ("its default, mp3", {}, ["-t", "mp3"]),
    ]:
        judge_speech(f"deepgram speaks {name}", url, ask(**asked)(), reader)

    word = lambda caught: (caught.status_code, caught.body["err_code"])  # noqa: E731
    for name, asked, wanted in [
        ("a wrong key", ask("dg-wrong"), (401, "INVALID_AUTH")),
        ("no such model", ask(model="alloy"), (400, "Bad Request")),
        ("mulaw at 44.1 kHz", ask(encoding="mulaw", sample_rate=44100), (400, "Bad Request")),
        ("mp3 in a WAV", ask(encoding="mp3", container="wav"), (400, "Bad Request")),
        ("opus", ask(encoding="opus"), (400, "Bad Request")),
        ("nothing to say", ask(text=" "), (400, "Bad Request")),
        ("too much to say", ask(text="word " * 500), (413, "PAYLOAD_TOO_LARGE")),
        ("no credit", ask("dg-broke"), (402, "ASR_PAYMENT_REQUIRED")),
        ("too often", ask("dg-limited"), (429, "TOO_MANY_REQUESTS")),
    ]:
        refused(f"deepgram: {name}", (DeepgramError,), asked, word, wanted)


def main(url):
    judge_transcription(url)
    judge_openai_speech(url)
    judge_elevenlabs(url)
    judge_deepgram(url)
    print(f"{sum(findings)} of {len(findings)} findings as they should be")
    return all(findings)


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1]))
