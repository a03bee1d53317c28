"""Twilio's REST API, as far as calls are changed by it: `carrier_api.py PORT`.

POST /2010-04-01/Accounts/AC…/Calls/CA….json is answered as its reference has it, and what Twilio would
refuse is refused: the wrong basic auth (20003), a call that is not there (20404) or not in progress
(21220), a form that says nothing or two things, TwiML with anything in it that is not documented.

A test makes calls and looks after them: POST /test/calls/CA… says that there is one (with `trouble` in
its JSON: what this server does in place of an answer), GET /log lists every request with what it meant.
Which account asks decides by its name and token, or by a key of it.
"""

import base64
import json
import re
import sys
import time
import xml.etree.ElementTree as ElementTree
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit

from loopback import Log, Service, serve
from vendor import Refusal

ACCOUNT = "AC00000000000000000000000000000000"
PARENT = "AC11111111111111111111111111111111"
SECRETS = {
    ACCOUNT: "t0ken",
    PARENT: "parents",
    "SK00000000000000000000000000000000": "keys",
}
SID = r"(AC|CA)[0-9a-f]{32}"
URL = re.compile(r"https?://[^/\s]+(/\S*)?")
FIELDS = {
    "Url", "Method", "Status", "FallbackUrl", "FallbackMethod", "StatusCallback", "StatusCallbackMethod", "Twiml",
    "TimeLimit",
}  # fmt: skip

calls = {}  # by sid: what is known of each


def error(status, code, message, headers=None):
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    return Refusal(status, {"code": code, "message": message, "more_info": more_info, "status": status}, headers)


# ---- TwiML: element → (attributes with the form of their values, children; text's form where it has one)
ANY_URL = URL.pattern
EVENTS = r"(initiated|ringing|answered|completed)( (initiated|ringing|answered|completed))*"
NOUN = {"statusCallback": ANY_URL, "statusCallbackEvent": EVENTS, "statusCallbackMethod": "GET|POST"}
VERBS = {
    "Response": ({}, ("Dial", "Play", "Connect", "Hangup", "Say", "Redirect"), None),
    "Hangup": ({}, (), None),
    "Dial": (
        {
            "action": ANY_URL, "method": "GET|POST", "timeout": r"\d{1,3}", "timeLimit": r"\d+",
            "callerId": r"\+[1-9]\d{1,14}|client:.+", "answerOnBridge": "true|false", "hangupOnStar": "true|false",
        },
        ("Number", "Sip", "Client"),
        None,
    ),
    "Number": (NOUN, (), r"\+[1-9]\d{1,14}"),
    "Sip": (NOUN, (), r"sips?:\S{1,250}"),
    "Client": (NOUN, (), r"[A-Za-z0-9_.@+-]{1,256}"),
    "Play": ({"digits": "[0-9wA-D*#]+", "loop": r"\d+"}, (), None),
    "Connect": ({"action": ANY_URL, "method": "GET|POST"}, ("Stream",), None),
    "Stream": (
        {
            "url": r"wss?://[^?\s]+", "name": ".+", "track": "inbound_track", "statusCallback": ANY_URL,
            "statusCallbackMethod": "GET|POST",
        },
        ("Parameter",),
        None,
    ),
    "Parameter": ({"name": r"(?s).{1,500}", "value": r"(?s).{0,500}"}, (), None),
}  # fmt: skip
NEEDED = {"Stream": ("url",), "Parameter": ("name", "value"), "Play": ("digits",)}


def check_element(element, within=None):
    if element.tag not in VERBS or (within and element.tag not in within):
        raise error(400, 12200, f"<{element.tag}> does not belong there")
    attributes, children, text = VERBS[element.tag]
    for name, value in element.attrib.items():
        if name not in attributes or not re.fullmatch(attributes[name], value):
            raise error(400, 12200, f"{name}={value!r} is nothing that <{element.tag}> has")
    missing = [name for name in NEEDED.get(element.tag, ()) if name not in element.attrib]
    if missing:
        raise error(400, 12200, f"<{element.tag}> without {missing}")
    if not re.fullmatch(text or r"\s*", element.text or ""):
        raise error(400, 13223, f"{element.text!r} is nothing that can be in <{element.tag}>")
    for child in element:
        check_element(child, children)
    if element.tag in ("Dial", "Connect") and len(element) != 1:
        raise error(400, 12200, f"<{element.tag}> with {len(element)} nouns")


def meaning(twiml):
    """The TwiML as plain values: what each verb is, and all that it says."""
    if len(twiml) > 4000:
        raise error(400, 32018, "The TwiML is longer than 4000 characters")
    try:
        response = ElementTree.fromstring(twiml)
    except ElementTree.ParseError as wrong:
        raise error(400, 12100, f"Document parse failure: {wrong}") from None
    if response.tag != "Response" or response.attrib or not len(response):
        raise error(400, 12200, "no <Response> with a verb in it")
    check_element(response)
    return [plain(verb) for verb in response]


def plain(element):
    children = [plain(child) for child in element]
    return {"is": element.tag, **element.attrib, "text": element.text or "", "has": children}


# ---- the request


def authenticated(headers, account):
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    try:
        user, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        user, secret = "", ""
    known = scheme == "Basic" and user in SECRETS and SECRETS[user] == secret
    # An account's own name opens no other account, but that of the account above it does.
    if not known or (user.startswith("AC") and user not in (account, PARENT)):
        raise error(401, 20003, "Authenticate")
    return user


def form(headers, body):
    kind = headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise error(400, 20001, f"Content-Type {kind!r}")
    fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    names = [name for name, _ in fields]
    if len(names) != len(set(names)) or not set(names) <= FIELDS:
        raise error(400, 20001, f"fields {names}")
    told = [name for name in ("Url", "Twiml", "Status") if name in names]
    if len(told) != 1:
        raise error(400, 21218 if not told else 21222, f"one of Url, Twiml and Status is wanted, not {told}")
    return dict(fields)


def answer(path, headers, body, entry):
    match = re.fullmatch(f"/2010-04-01/Accounts/({SID})/Calls/({SID})\\.json", path)
    if not match:
        raise error(404, 20404, f"The requested resource {path} was not found")
    account, sid = match[1], match[3]
    entry["call_sid"] = sid
    entry["user"] = authenticated(headers, account)
    call = calls.get(sid)
    if call is None or call["account"] != account:
        raise error(404, 20404, f"The requested resource {path} was not found")
    trouble = call.get("trouble")
    if trouble == "busy":
        raise error(429, 20429, "Too Many Requests", {"Retry-After": "2"})
    if trouble == "down":
        raise error(500, 20500, "Internal Server Error")
    if trouble == "gone":
        raise error(404, 20404, f"The requested resource {path} was not found")
    if trouble == "hangs":
        time.sleep(60)
    fields = form(headers, body)
    entry["fields"] = fields
    if "Status" in fields:
        if fields["Status"] not in ("completed", "canceled"):
            raise error(400, 21218, f"Status {fields['Status']!r}")
        # One that is over already stays over.
        call["status"] = "completed"
        return shown(account, sid, call)
    if call["status"] != "in-progress":
        raise error(400, 21220, "Call is not in-progress. Cannot redirect.")
    if "Twiml" in fields:
        entry["twiml"] = meaning(fields["Twiml"])
    elif not URL.fullmatch(fields["Url"]):
        raise error(400, 21205, "Url is not a valid URL")
    return shown(account, sid, call)


def shown(account, sid, call):
    """A call, with the fields of its reference."""
    uri = f"/2010-04-01/Accounts/{account}/Calls/{sid}"
    now = formatdate(usegmt=True)
    nothing = ["answered_by", "caller_name", "forwarded_from", "group_sid", "parent_call_sid", "price", "trunk_sid"]
    subresources = {name: f"{uri}/{name.title()}.json" for name in ("notifications", "recordings", "streams")}
    return {
        "sid": sid, "account_sid": account, "status": call["status"], "api_version": "2010-04-01",
        "date_created": now, "date_updated": now, "start_time": now, "end_time": None, "direction": "inbound",
        "duration": None, "from": "+15550111", "from_formatted": "(555) 011-1", "to": "+15550100",
        "to_formatted": "(555) 010-0", "phone_number_sid": "", "price_unit": "USD", "queue_time": "0",
        "annotation": None, "uri": f"{uri}.json", "subresource_uris": subresources, **dict.fromkeys(nothing),
    }  # fmt: skip


class Carrier(Service):
    log = Log()
    extra = {}

    def do_POST(self):
        url = urlsplit(self.path)
        body = self.read_body()
        if url.path.startswith("/test/calls/"):
            sid, asked = url.path.rsplit("/", 1)[1], json.loads(body or b"{}")
            calls[sid] = {"account": ACCOUNT, "status": "in-progress", **asked}
            return self.answer_json(200, calls[sid])
        entry = {"path": url.path, "agent": self.headers.get("User-Agent", ""), "came": time.time()}
        try:
            if url.query:
                raise error(400, 20001, f"a query: {url.query}")
            call = answer(url.path, self.headers, body, entry)
        except Refusal as refusal:
            self.log.add(**entry, status=refusal.status, code=refusal.body["code"])
            Carrier.extra = refusal.headers
            return self.answer_json(refusal.status, refusal.body)
        self.log.add(**entry, status=200)
        return self.answer_json(200, call)

    def end_headers(self):
        for name, value in self.extra.items():
            self.send_header(name, value)
        Carrier.extra = {}
        super().end_headers()


if __name__ == "__main__":
    serve(Carrier, int(sys.argv[1]))
