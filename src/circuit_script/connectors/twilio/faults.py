"""What Twilio's errors mean: https://www.twilio.com/docs/api/errors. The answer's JSON has its own ``code``."""

from __future__ import annotations

import httpx

from circuit_script.connectors.api import Fault, after_of

FULL = 300.0  # seconds for which a sender whose queue is full is left alone
LOOPING = 60.0
TOMORROW = 3600.0  # where a day's messages are used up, it is asked again so often

FAULTS = (
    Fault((400, 599), "slow_down", "20429"),
    Fault((400, 599), "later", "21611"),  # the sender's queue is full
    Fault((400, 599), "later", "30001"),  # so is this
    Fault((400, 599), "later", "30022"),  # the campaign's rate
    Fault((400, 599), "later", "14107"),  # too many messages between two numbers
    Fault((400, 599), "slow_down", "63038"),  # the account's messages of a day
    Fault((400, 599), "refused", "21610"),  # the person has said STOP
    Fault((400, 499), "refused", "21211"),  # no number
    Fault((400, 499), "refused", "21614"),  # not a mobile number
    Fault((400, 499), "refused", "21408"),  # the account may not send there
    Fault((400, 499), "refused", "21606"),  # the sender is not the account's
    Fault((400, 499), "refused", "21617"),  # too long
    Fault((400, 499), "token", "20003"),  # the token is wrong
    Fault((400, 499), "token", "20005"),  # the account is suspended
    Fault(404, "token", "20404"),  # there is no such account
    Fault(401, "token"),
    Fault(429, "slow_down"),
)

# Said beside Twilio's own words, which do not say what is to be done.
MEANINGS = {
    "21610": "this person has answered STOP and wants no messages from this sender",
    "21211": "this is no number that can be reached",
    "21614": "this number takes no text messages",
    "21408": "the account may not send to this country",
    "21606": "this sender is not the account's, or cannot send text messages",
}


def code_of(response: httpx.Response) -> str | None:
    found = response.json()
    code = found.get("code") if isinstance(found, dict) else None
    return str(code) if isinstance(code, int | str) and not isinstance(code, bool) else None


def wait_of(response: httpx.Response) -> float | None:
    if (said := after_of(response)) is not None:
        return said
    return {"21611": FULL, "30001": FULL, "14107": LOOPING, "63038": TOMORROW}.get(code_of(response) or "")
