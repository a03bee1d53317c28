"""Says every line of sentences.txt in the caller's voice to a running recogniser, and keeps score.

`hear_all.py http://127.0.0.1:PORT/stt` prints one line a sentence and exits 1 unless all are exact:
the tests assert on words, so this pair of voice and grammar must be certain.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))


def spoken(sentence, folder):
    wav = os.path.join(folder, "said.wav")
    subprocess.run([os.path.join(HERE, "speak.sh"), sentence, wav], check=True)
    ulaw = subprocess.run(
        ["sox", "-D", wav, "-t", "ul", "-"], check=True, capture_output=True
    ).stdout
    with open(wav, "rb") as file:
        return {"audio/wav": file.read(), "audio/basic": ulaw}


def heard(url, content_type, audio):
    request = urllib.request.Request(url, audio, {"Content-Type": content_type})
    return json.load(urllib.request.urlopen(request, timeout=20))


def main(url):
    with open(os.path.join(HERE, "sentences.txt"), encoding="utf-8") as file:
        sentences = file.read().splitlines()
    exact = total = 0
    with tempfile.TemporaryDirectory() as folder:
        for sentence in sentences:
            for content_type, audio in spoken(sentence, folder).items():
                answer = heard(url, content_type, audio)
                right = answer["text"] == sentence
                exact += right
                total += 1
                print(
                    f"{'exact' if right else 'WRONG'} {content_type:11} {answer['ms']:6.1f} ms  "
                    f"{sentence}" + ("" if right else f"  heard: {answer['text']!r}")
                )
    print(f"{exact} of {total} exact")
    return exact == total


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1]))
