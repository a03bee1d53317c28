"""Twilio's own client judges the fake: `judge_carrier.py URL` has `twilio` change calls at carrier_api.py
as it would at Twilio. Prints one line a finding, and exits 1 if one is wrong."""

import sys
import urllib.request
from urllib.parse import urlsplit, urlunsplit

from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client
from twilio.twiml.voice_response import Connect, Dial, VoiceResponse

ACCOUNT, KEY = "AC" + "0" * 32, "SK" + "0" * 32
PARENT = "AC" + "1" * 32
BASE = urlsplit(sys.argv[1])
findings = []


def finding(name, seen, wanted):
    findings.append(seen == wanted)
    verdict, but = ("ok   ", "") if seen == wanted else ("WRONG", f", not {wanted!r}")
    print(f"{verdict} {name}: {seen!r}{but}")


class Here(TwilioHttpClient):
    """The client's own, to this server in place of api.twilio.com."""

    def request(self, method, uri, *args, **kwargs):
        to = urlunsplit(urlsplit(uri)._replace(scheme=BASE.scheme, netloc=BASE.netloc))
        return super().request(method, to, *args, **kwargs)


def client(user=ACCOUNT, secret="t0ken", account=ACCOUNT):
    return Client(user, secret, account, http_client=Here())


def call(number, trouble=None):
    """A call that is under way."""
    sid = f"CA{number:032x}"
    body = b"{}" if trouble is None else f'{{"trouble": "{trouble}"}}'.encode()
    urllib.request.urlopen(f"{sys.argv[1]}/test/calls/{sid}", data=body).read()
    return sid


def refused(name, status, code, act):
    try:
        act()
    except TwilioRestException as error:
        finding(name, (error.status, error.code), (status, code))
    else:
        finding(name, "no error", (status, code))


# ---- what is done
ended = client().calls(call(1)).update(status="completed")
finding("hung up", (ended.sid, ended.status, ended.account_sid), (call(1), "completed", ACCOUNT))
finding("its dates are read", ended.date_updated is not None and ended.end_time is None, True)
again = call(2)
client().calls(again).update(status="completed")
finding("hung up twice", client().calls(again).update(status="completed").status, "completed")

through = VoiceResponse()
dial = Dial(caller_id="+15550123", timeout=20, action="https://bot.example.com/dialled")
dial.number("+15550100", status_callback="https://bot.example.com/leg", status_callback_event="ringing answered")
through.append(dial)
finding("put through", client().calls(call(3)).update(twiml=through).status, "in-progress")
by_sip = VoiceResponse()
by_sip.dial().sip("sip:anna@pbx.example.com")
finding("by SIP", client().calls(call(4)).update(twiml=by_sip).status, "in-progress")

keys = VoiceResponse()
keys.play(digits="1w2#")
connect = Connect()
stream = connect.stream(url="wss://bot.example.com/ws", status_callback="https://bot.example.com/status")
stream.parameter(name="call_sid", value="CA <&> 'x' \"y\"")
keys.append(connect)
finding("keys, and back", client().calls(call(5)).update(twiml=keys).status, "in-progress")
finding("by a key", client(KEY, "keys").calls(call(6)).update(status="completed").status, "completed")
below = client(PARENT, "parents").api.v2010.accounts(ACCOUNT)
finding("of an account below", below.calls(call(7)).update(status="completed").status, "completed")

# ---- what is refused
twiml = lambda text: lambda: client().calls(call(8)).update(twiml=text)  # noqa: E731
refused("a wrong token", 401, 20003, lambda: client(secret="wrong").calls(call(8)).update(status="completed"))
refused("a wrong key", 401, 20003, lambda: client(KEY, "wrong").calls(call(8)).update(status="completed"))
other = client(PARENT, "parents", PARENT)
refused("another account's call", 404, 20404, lambda: other.calls(call(8)).update(status="completed"))
refused("no such call", 404, 20404, lambda: client().calls(f"CA{99:032x}").update(status="completed"))
refused("no such status", 400, 21218, lambda: client().calls(call(8)).update(status="busy"))
refused("nothing to do", 400, 21218, lambda: client().calls(call(8)).update())
refused("two things to do", 400, 21222, lambda: client().calls(call(8)).update(status="completed", twiml=keys))
refused("through when over", 400, 21220, lambda: client().calls(again).update(twiml=through))
refused("no XML", 400, 12100, twiml("<Response><Dial>"))
refused("no such verb", 400, 12200, twiml("<Response><Dance/></Response>"))
refused("no such attribute", 400, 12200, twiml('<Response><Hangup now="true"/></Response>'))
refused("no verb at all", 400, 12200, twiml("<Response/>"))
refused("no number", 400, 13223, twiml("<Response><Dial><Number>5550100</Number></Dial></Response>"))
refused("no keys", 400, 12200, twiml('<Response><Play digits="one"/></Response>'))
query = '<Response><Connect><Stream url="wss://x/ws?a=1"/></Connect></Response>'
refused("a stream with a query", 400, 12200, twiml(query))
refused("too long", 400, 32018, twiml(f"<Response><Hangup/><!--{'x' * 4000}--></Response>"))
refused("too often", 429, 20429, lambda: client().calls(call(9, "busy")).update(status="completed"))
refused("out of order", 500, 20500, lambda: client().calls(call(9, "down")).update(status="completed"))
refused("gone", 404, 20404, lambda: client().calls(call(9, "gone")).update(status="completed"))

sys.exit(0 if all(findings) else 1)
