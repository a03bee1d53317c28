"""Requests signed by Twilio's own package, as one JSON list: url, form, signature, each drawn from a fixed
seed. What is signed by whom is for the reader to check."""

import json
import random
import urllib.parse

from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict

draw = random.Random(31920)
letters = "abcXYZ019 +&=%/?#äöü漢🎧.~-_*'()"


def word(longest):
    return "".join(draw.choice(letters) for _ in range(draw.randint(0, longest)))


signed = []
for number in range(200):
    fields = [(f"Name{draw.randint(0, 9)}", word(12)) for _ in range(draw.randint(0, 12))]
    query = urllib.parse.urlencode([(f"q{n}", word(5)) for n in range(draw.randint(0, 2))])
    url = f"https://bot.example.com/webhook/{number}" + (f"?{query}" if query else "")
    signature = RequestValidator("12345").compute_signature(url, MultiDict(fields))
    signed.append({"url": url, "form": urllib.parse.urlencode(fields), "signature": signature})
print(json.dumps(signed))
