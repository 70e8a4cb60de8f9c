"""What a stranger's request to Twilio's path may cost where there are many accounts."""

from __future__ import annotations

import pytest

from circuit_script.errors import IntakeRefused
from circuit_script.events.sources.source import Reason, Request
from circuit_script.events.sources.twilio import MOST_UNNAMED, SIGNATURE, Twilio
from circuit_script.events.sources.verify import Keyring, mac

URL = "https://hooks.example.com/webhooks/twilio"
SECRETS = {f"AC{number}": (f"token {number}",) for number in range(3)}


def signed(fields: dict[str, str]) -> Request:
    tail = "".join(name + fields[name] for name in sorted(fields))
    signature = mac(b"token 2", f"{URL}{tail}".encode(), "sha1", "base64").decode()
    body = "&".join(f"{name}={value}" for name, value in fields.items()).encode()
    return Request("POST", "/webhooks/twilio", b"", {SIGNATURE: signature}, body, 1.0)


def test_a_large_body_is_not_hashed_with_the_token_of_every_account() -> None:
    twilio = Twilio(Keyring.of(SECRETS, "sources.twilio.secrets"), URL)
    large = "a" * (MOST_UNNAMED + 1)
    assert twilio.verify(signed({"Body": "a"})) == "AC2"
    assert twilio.verify(signed({"AccountSid": "AC2", "Body": large})) == "AC2"
    with pytest.raises(IntakeRefused) as refused:
        twilio.verify(signed({"Body": large}))
    assert refused.value.reason == Reason.UNKNOWN_ACCOUNT
