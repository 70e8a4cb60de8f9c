"""Pushes of Pub/Sub: the token, and the keys that it is checked by, fetched from a real server."""

import asyncio
import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.config import SourceSettings
from circuit_script.errors import IntakeRefused
from circuit_script.events.sources import Reason, Request, open_sources
from circuit_script.events.sources.google import PAUSE, Google, PublishedKeys, read_keys
from circuit_script.events.sources.verify import LEEWAY
from tests.signing import NOW
from tests.tokens import AUDIENCE, CLAIMS, EMAIL, KEYS, b64url, jwks, key_server, token


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Known(PublishedKeys):
    """Keys that need no server."""

    def __init__(self):
        super().__init__("http://127.0.0.1:9/none")
        self.keys = read_keys(jwks("k1"))


SOURCE = Google((AUDIENCE, "other-audience"), (EMAIL, "second@x.iam.gserviceaccount.com"), Known())


def request(text, now=NOW):
    headers = {} if text is None else {"authorization": text}
    return Request("POST", "/webhooks/google", b"", headers, b"{}", now)


def refusal(text, source=SOURCE, now=NOW):
    with pytest.raises(IntakeRefused) as caught:
        source.verify(request(text, now))
    assert caught.value.reason in set(Reason)
    return caught.value.status, caught.value.reason


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"iss": "accounts.google.com"},
        {"aud": "other-audience"},
        {"email": "second@x.iam.gserviceaccount.com"},
        {"exp": NOW - LEEWAY, "iat": NOW - 3600},
        {"iat": NOW + LEEWAY},
    ],
)
def test_a_token_of_ours_is_good(claims):
    assert SOURCE.verify(request(f"Bearer {token(**claims)}")) == ""
    SOURCE.verify(request(f"bearer {token(**claims)} "))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://evil.example"}, "wrong-claims"),
        ({"iss": None}, "wrong-claims"),
        ({"iss": ["accounts.google.com"]}, "wrong-claims"),
        ({"aud": "https://elsewhere.example"}, "wrong-claims"),
        ({"aud": [AUDIENCE]}, "wrong-claims"),
        ({"aud": None}, "wrong-claims"),
        ({"email": "stranger@project.iam.gserviceaccount.com"}, "wrong-claims"),
        ({"email": None}, "wrong-claims"),
        ({"email": "☃"}, "wrong-claims"),
        ({"email_verified": False}, "wrong-claims"),
        ({"email_verified": "true"}, "wrong-claims"),
        ({"email_verified": None}, "wrong-claims"),
        ({"exp": None}, "wrong-claims"),
        ({"iat": None}, "wrong-claims"),
        ({"exp": "soon"}, "wrong-claims"),
        ({"exp": True}, "wrong-claims"),
        ({"exp": NOW - LEEWAY - 1}, "timestamp-too-old"),
        ({"iat": NOW + LEEWAY + 1}, "timestamp-in-the-future"),
    ],
)
def test_a_token_that_says_something_else_is_refused(claims, reason):
    assert refusal(f"Bearer {token(**claims)}") == (401, reason)


@pytest.mark.parametrize("text", [None, "", "Bearer", "Bearer ", "Basic x", token()])
def test_a_token_is_needed(text):
    assert refusal(text) == (401, "missing-signature")


def test_tokens_signed_otherwise_are_refused():
    good = token()
    head, body, signature = good.split(".")
    assert refusal(f"Bearer {token('k2')}") == (401, "unknown-key")
    assert refusal(f"Bearer {token('k1', key='k2')}") == (401, "bad-signature")
    assert refusal(f"Bearer {head}.{body}.") == (401, "bad-signature")
    assert refusal(f"Bearer {head}.{body}") == (401, "bad-signature")
    assert refusal(f"Bearer {good}.x") == (401, "bad-signature")
    assert refusal(f"Bearer {token(head={'alg': 'none'})}") == (401, "bad-signature")
    assert refusal(f"Bearer {token(head={'kid': None})}") == (401, "unknown-key")
    assert refusal(f"Bearer {token(head={'kid': ['k1']})}") == (401, "unknown-key")
    assert refusal(f"Bearer {good}{'A' * 20_000}") == (401, "bad-signature")
    other = b64url(json.dumps({**CLAIMS, "sub": "2"}).encode())
    assert refusal(f"Bearer {head}.{other}.{signature}") == (401, "bad-signature")
    assert refusal(f"Bearer {head}.{b64url(b'[]')}.{signature}") == (401, "bad-signature")


def test_the_public_key_is_no_secret_of_an_hmac():
    pem = KEYS["k1"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{b64url(json.dumps({'alg': 'HS256', 'kid': 'k1'}).encode())}.{b64url(json.dumps(CLAIMS).encode())}"
    forged = b64url(hmac.new(pem, signed.encode(), hashlib.sha256).digest())
    assert refusal(f"Bearer {signed}.{forged}") == (401, "bad-signature")


@given(st.data())
def test_one_changed_character_of_a_token_is_refused(data):
    good = token()
    place = data.draw(st.integers(0, len(good) - 1))
    letter = data.draw(st.sampled_from("ABCabc019-_.=+é").filter(lambda each: each != good[place]))
    status, reason = refusal(f"Bearer {good[:place]}{letter}{good[place + 1 :]}")
    assert status == 401
    assert reason in ("bad-signature", "unknown-key")


@given(st.text(max_size=60))
def test_any_text_is_refused_as_a_token(text):
    for each in (text, f"{text}.{text}.{text}", f"{b64url(text.encode())}.{text}.x"):
        assert refusal(f"Bearer {each}")[0] == 401


def test_another_implementation_agrees():
    jwt = pytest.importorskip("jwt")
    made = jwt.encode(CLAIMS, KEYS["k1"], algorithm="RS256", headers={"kid": "k1"})
    SOURCE.verify(request(f"Bearer {made}"))
    options = {"verify_exp": False, "verify_iat": False}
    found = jwt.decode(token(), KEYS["k1"].public_key(), algorithms=["RS256"], audience=AUDIENCE, options=options)
    assert found == CLAIMS


@pytest.mark.parametrize("settings", [{}, {"audience": AUDIENCE}, {"service_accounts": [EMAIL]}])
async def test_without_audience_and_service_account_everything_is_refused(settings):
    source = open_sources(SourceSettings.model_validate({"google": settings}))["google"]
    await source.prepare(request(f"Bearer {token()}"))  # asks nobody
    assert refusal(f"Bearer {token()}", source) == (401, "no-secret")


# Keys


async def prepared(keys, text=None):
    source = Google((AUDIENCE,), (EMAIL,), keys)
    asked = request(text or f"Bearer {token()}")
    await source.prepare(asked)
    source.verify(asked)


async def test_keys_are_fetched_once_and_again_when_they_are_old():
    async with key_server() as server:
        clock = Clock()
        keys = PublishedKeys(server.url, clock=clock)
        for _ in range(3):
            await prepared(keys)
        assert server.asked == 1
        clock.now += 3601
        await prepared(keys)
        assert server.asked == 2


async def test_a_new_key_is_fetched_when_a_token_names_it():
    async with key_server() as server:
        clock = Clock()
        keys = PublishedKeys(server.url, clock=clock)
        await prepared(keys)
        server.body = jwks("k1", "k2")
        with pytest.raises(IntakeRefused) as caught:  # what a stranger names is not asked for again and again
            await prepared(keys, f"Bearer {token('k2')}")
        assert caught.value.reason == "unknown-key"
        assert server.asked == 1
        clock.now += PAUSE
        await prepared(keys, f"Bearer {token('k2')}")
        assert server.asked == 2
        server.body = jwks("k2")
        clock.now += 3601
        with pytest.raises(IntakeRefused) as caught:  # withdrawn
            await prepared(keys)
        assert caught.value.reason == "unknown-key"


async def test_many_who_need_keys_at_once_share_one_fetch():
    async with key_server() as server:
        keys = PublishedKeys(server.url)
        server.gate.clear()
        waiting = [asyncio.create_task(prepared(keys)) for _ in range(20)]
        while not server.asked:
            await asyncio.sleep(0.01)
        server.gate.set()
        await asyncio.gather(*waiting)
        assert server.asked == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (200, b"{"),
        (200, b"[]"),
        (200, b'{"keys": []}'),
        (200, b'{"keys": [5]}'),
        (200, b'{"keys": [{"kid": "k1", "kty": "RSA", "n": "AQAB", "e": "AQAB"}]}'),
        (200, b'{"keys": [{"kid": "k1", "kty": "oct", "k": "AAAA"}]}'),
        (200, b" " * 300_000),
    ],
)
async def test_while_keys_cannot_be_had_everything_is_to_come_again(status, body):
    async with key_server() as server:
        clock = Clock()
        keys = PublishedKeys(server.url, clock=clock)
        good, server.status, server.body = server.body, status, body
        for _ in range(3):
            with pytest.raises(IntakeRefused) as caught:
                await prepared(keys)
            assert (caught.value.status, caught.value.reason) == (503, "keys-away")
        assert server.asked == 1
        server.status, server.body = 200, good
        clock.now += PAUSE
        await prepared(keys)


async def test_old_keys_are_not_used_when_new_ones_cannot_be_had():
    async with key_server() as server:
        clock = Clock()
        keys = PublishedKeys(server.url, clock=clock)
        await prepared(keys)
        server.status = 500
        clock.now += 3601
        with pytest.raises(IntakeRefused) as caught:
            await prepared(keys)
        assert caught.value.reason == "keys-away"


async def test_nobody_listens_where_keys_should_be():
    with pytest.raises(IntakeRefused) as caught:
        await prepared(PublishedKeys("http://127.0.0.1:9/none"))
    assert caught.value.reason == "keys-away"


def test_base64_of_a_key_may_be_padded():
    padded = json.loads(jwks("k1"))
    padded["keys"][0]["n"] += "=" * (-len(padded["keys"][0]["n"]) % 4)
    assert list(read_keys(json.dumps(padded).encode())) == ["k1"]
    assert base64.urlsafe_b64decode(padded["keys"][0]["n"])
