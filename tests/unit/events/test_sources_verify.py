"""Signatures of every source: what is good, and what is refused, and why."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.config import SourceSettings
from circuit_script.errors import ConfigError, IntakeRefused
from circuit_script.events.sources import Reason, Request, open_sources
from circuit_script.events.sources.verify import TOLERANCE
from tests.signing import (
    ACCOUNT,
    HOST,
    NEW,
    NOW,
    OLD,
    OTHER,
    SETTINGS,
    SMS,
    VENDORS,
    b64,
    digest,
    json_of,
    mac,
    standard,
    twilio,
    url,
)

OPEN = open_sources(SETTINGS)
EVERY = list(VENDORS.values())
NAMES = list(VENDORS)
TIMED = [each for each in EVERY if each.clock or each.name == "stripe"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_"


def changed(request, **changes):
    fields = {name: getattr(request, name) for name in Request.__struct_fields__}
    return Request(**{**fields, **changes})


def without(request, *names):
    return changed(request, headers={name: each for name, each in request.headers.items() if name not in names})


def with_(request, **headers):
    return changed(request, headers={**request.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})


def refusal(request, name, sources=OPEN):
    with pytest.raises(IntakeRefused) as caught:
        sources[name].verify(request)
    assert caught.value.reason in set(Reason)
    for secret in (OLD, NEW, OTHER):
        assert secret not in str(caught.value)
    return caught.value.status, caught.value.reason


def opened(**settings):
    return open_sources(SourceSettings.model_validate(settings))


@pytest.mark.parametrize("vendor", EVERY, ids=NAMES)
@pytest.mark.parametrize("secret", [OLD, NEW])
def test_what_the_vendor_signed_is_good_with_each_of_its_secrets(vendor, secret):
    OPEN[vendor.name].verify(vendor.request(secret=secret))


@pytest.mark.parametrize("vendor", EVERY, ids=NAMES)
def test_another_key_is_refused(vendor):
    assert refusal(vendor.request(secret=OTHER), vendor.name) == (401, "bad-signature")


@pytest.mark.parametrize("vendor", EVERY, ids=NAMES)
def test_a_source_without_a_secret_refuses_everything(vendor):
    reason = "unknown-account" if vendor.account else "no-secret"
    assert refusal(vendor.request(), vendor.name, opened()) == (401, reason)


@pytest.mark.parametrize("vendor", EVERY, ids=NAMES)
def test_each_header_of_a_signature_is_needed(vendor):
    for name in (vendor.signature, vendor.clock, *vendor.needed):
        if name is not None:
            assert refusal(without(vendor.request(), name), vendor.name) == (401, "missing-signature")
            blank = changed(vendor.request(), headers={**vendor.request().headers, name: ""})
            assert refusal(blank, vendor.name) == (401, "missing-signature")


@given(st.sampled_from(EVERY), st.data())
def test_one_flipped_bit_of_a_body_is_refused(vendor, data):
    place = data.draw(st.integers(0, len(vendor.body) * 8 - 1))
    body = bytearray(vendor.body)
    body[place // 8] ^= 1 << place % 8
    request = changed(vendor.request(), body=bytes(body))
    if vendor.name == "twilio":
        with suppress(ValueError):  # what is signed are the fields, and %2b is %2B
            if parse_qsl(body.decode("ascii")) == parse_qsl(vendor.body.decode()):
                return
        assert refusal(request, vendor.name) in [(401, "bad-signature"), (401, "unknown-account"), (400, "not-a-form")]
        return
    assert refusal(request, vendor.name) == (401, "bad-signature")


@given(st.sampled_from(EVERY), st.data())
def test_one_changed_character_of_a_signature_is_refused(vendor, data):
    """Base64 has bits that nobody reads: a signature has one spelling all the same."""
    request = vendor.request()
    text = request.headers[vendor.signature]
    text = text.partition(",v0=")[0]
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from(LETTERS).filter(lambda each: each != text[place]))
    kind = data.draw(st.sampled_from(["replaced", "added", "dropped", "cut"]))
    spoiled = {
        "replaced": text[:place] + letter + text[place + 1 :],
        "added": text + letter,
        "dropped": text[:place] + text[place + 1 :],
        "cut": text[:place],
    }[kind]
    status, reason = refusal(with_(request, **{vendor.signature: spoiled}), vendor.name)
    assert status == 401
    assert reason in ("bad-signature", "missing-signature", "unusable-timestamp")


@pytest.mark.parametrize("vendor", EVERY, ids=NAMES)
@pytest.mark.parametrize("text", ["é", "☃", "\x00", " ", ",", "=", "v1,", "t=,v1=", "A" * 100_000, "v1," * 50_000])
def test_signatures_that_are_none_are_refused_and_raise_nothing_else(vendor, text):
    status, _ = refusal(with_(vendor.request(), **{vendor.signature: text}), vendor.name)
    assert status == 401


@pytest.mark.parametrize("vendor", TIMED, ids=[each.name for each in TIMED])
def test_both_sides_of_the_clock_are_checked(vendor):
    source = OPEN[vendor.name]
    for seconds in (-TOLERANCE, TOLERANCE):
        source.verify(vendor.request(at=NOW + seconds))
    assert refusal(vendor.request(at=NOW - TOLERANCE - 1), vendor.name) == (401, "timestamp-too-old")
    assert refusal(vendor.request(at=NOW + TOLERANCE + 1), vendor.name) == (401, "timestamp-in-the-future")
    assert refusal(vendor.request(at=NOW * 2), vendor.name) == (401, "timestamp-in-the-future")


@pytest.mark.parametrize("vendor", [each for each in EVERY if each.clock], ids=lambda each: each.name)
@pytest.mark.parametrize("stamp", ["soon", "1e9", "-1", "١٢٣", "1_0", " 1", "9" * 400, "0x1", "1.5", "nan", "²"])
def test_a_time_that_is_no_number_is_refused(vendor, stamp):
    request = with_(vendor.request(), **{vendor.clock: stamp})
    assert refusal(request, vendor.name) == (401, "unusable-timestamp")


@pytest.mark.parametrize("stamp", ["", "soon", "-1", "9" * 400, "1.5"])
def test_stripes_time_must_be_one_number(stamp):
    request = VENDORS["stripe"].request()
    header = request.headers["stripe-signature"]
    for each in (header.replace(f"t={NOW}", f"t={stamp}"), f"t={NOW},{header}", header.replace(f"t={NOW},", "")):
        assert refusal(with_(request, stripe_signature=each), "stripe") == (401, "unusable-timestamp")


@pytest.mark.parametrize("vendor", [each for each in EVERY if each.clock], ids=lambda each: each.name)
def test_another_time_than_the_signed_one_is_refused(vendor):
    request = vendor.request()
    other = str(int(request.headers[vendor.clock]) + 1)
    assert refusal(with_(request, **{vendor.clock: other}), vendor.name) == (401, "bad-signature")


@pytest.mark.parametrize("name", ["standard", "resend", "stripe", "hmac"])
def test_one_good_signature_among_several_is_enough(name):
    vendor = VENDORS[name]
    good, bad = (vendor.request(secret=each).headers[vendor.signature] for each in (NEW, OTHER))
    between = " " if name in ("standard", "resend") else ","
    if name == "stripe":
        good, bad = good.partition(",")[2], bad
    both = with_(vendor.request(), **{vendor.signature: between.join([bad, good])})
    OPEN[name].verify(both)
    neither = with_(vendor.request(), **{vendor.signature: between.join([bad, bad.partition(",")[2]])})
    assert refusal(neither, name) == (401, "bad-signature")


@given(
    st.sampled_from(EVERY),
    st.dictionaries(st.sampled_from(["x", "host", "authorization"]), st.text(max_size=30)),
    st.text(max_size=80),
    st.text(max_size=20),
    st.binary(max_size=300),
    st.binary(max_size=60),
)
def test_whatever_a_stranger_sends_is_refused_with_a_reason(vendor, headers, signature, stamp, body, query):
    headers = {**headers, vendor.signature: signature, **({vendor.clock: stamp} if vendor.clock else {})}
    headers |= dict.fromkeys(vendor.needed, "x")
    request = Request("POST", vendor.path, query, headers, body, NOW, vendor.account)
    status, _ = refusal(request, vendor.name)
    assert status in (400, 401)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(EVERY), JSON, st.data())
def test_any_value_in_any_field_is_parsed_or_refused(vendor, value, data):
    """Also what a vendor itself sends is not to be trusted with our process: whatever it is, it is typed."""
    if vendor.name == "twilio":
        name = data.draw(st.sampled_from([*SMS, "OptOutType", "CallSid", "MessageStatus"]))
        body = urlencode({**SMS, name: str(value)}).encode("ascii", "ignore")
        body = json_of({**SMS, name: value}) if data.draw(st.booleans()) else body
    else:
        body = json_of(spoiled(json.loads(vendor.body), value, data))
    with suppress(IntakeRefused):
        request = changed(vendor.request(), body=body)
        parsed = OPEN[vendor.name].parse(request)
        records = OPEN[vendor.name].records(body)
        assert len(parsed.events) == len(records) > 0
        for event, record in zip(parsed.events, records, strict=True):
            assert isinstance(record["id"], str)
            assert event.record
            assert vendor.name == "hmac" or event.record == record["id"]
            assert event.object


def spoiled(payload, value, data):
    """The payload with one of its values, wherever it stands, replaced."""
    if isinstance(payload, dict) and payload and data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(payload)))
        return {**payload, name: spoiled(payload[name], value, data)}
    if isinstance(payload, list) and payload and data.draw(st.booleans()):
        return [spoiled(payload[0], value, data), *payload[1:]]
    return value


@pytest.mark.parametrize("vendor", [each for each in EVERY if not each.account], ids=lambda each: each.name)
def test_in_a_table_a_secret_speaks_for_its_account_only(vendor):
    both = {"one": OLD, "two": NEW} if vendor.name != "resend" else {"one": standard(OLD), "two": standard(NEW)}
    settings = {"secrets": both} | ({"auth": "hmac"} if vendor.name == "vapi" else {})
    source = opened(**{vendor.name: settings})[vendor.name]
    if vendor.name == "twilio":
        assert refusal(vendor.request(secret=OLD), "twilio", {"twilio": source}) == (401, "unknown-account")
        return
    assert source.verify(vendor.request(secret=OLD)) == "one"
    request = vendor.request(secret=NEW)
    assert source.verify(request) == "two"
    if vendor.name == "hubspot":
        with pytest.raises(IntakeRefused) as caught:
            source.parse(request, "two")
        assert caught.value.reason == "unknown-account"
    else:
        assert source.parse(request, "two").account == "two"


def test_the_token_of_another_account_of_twilio_signs_nothing_for_this_one():
    source = opened(twilio={"secrets": {ACCOUNT: NEW, "AC2": OLD}})
    assert refusal(VENDORS["twilio"].request(secret=OLD), "twilio", source) == (401, "bad-signature")
    source["twilio"].verify(VENDORS["twilio"].request(secret=NEW))


def test_one_secret_for_two_accounts_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"sources\.slack\.secrets gives 'one' and 'two' the same"):
        opened(slack={"secrets": {"one": NEW, "two": [OLD, NEW]}})


@pytest.mark.parametrize("value", ["", " ", 5, [], [""], [5], ["a", None], {"a": ""}, {"a": {"b": "c"}}], ids=repr)
def test_what_is_no_secret_is_refused_without_being_told(value):
    if value == []:
        assert not opened(slack={"secrets": value})["slack"]._keys
        return
    with pytest.raises(ValueError, match="must be a text"):
        SourceSettings.model_validate({"slack": {"secrets": value}})


@pytest.mark.parametrize("name", ["a b", "x:y", "é", "x\r\n"])
def test_the_name_of_a_header_is_one(name):
    for setting in ("header", "timestamp_header"):
        with pytest.raises(ValueError, match="must be the name of a header"):
            SourceSettings.model_validate({"hmac": {"mine": {"secrets": NEW, setting: name}}})


def test_secrets_are_in_no_representation():
    shown = repr(SETTINGS) + str(SETTINGS)
    assert not any(each in shown for each in (OLD, NEW, "a word", standard(NEW)))


# Addresses


@pytest.mark.parametrize("host", ["hooks.example.com:443", "hooks.example.com:8443"])
def test_twilio_signs_some_addresses_with_their_port_and_some_without(host):
    vendor = VENDORS["twilio"]
    bare = twilio(vendor.body, NOW, NEW)
    OPEN["twilio"].verify(changed(vendor.request(), headers={**bare, "host": host}))
    ported = twilio(vendor.body, NOW, NEW, "hooks.example.com:443")
    OPEN["twilio"].verify(changed(vendor.request(), headers={**ported, "host": HOST}))


def test_a_configured_address_goes_before_the_one_that_the_request_names():
    vendor = VENDORS["twilio"]
    source = opened(twilio={"secrets": NEW, "url": url("twilio")})
    source["twilio"].verify(changed(vendor.request(), headers={**vendor.request().headers, "host": "10.0.0.7:8000"}))
    stranger = changed(vendor.request(), headers={**twilio(vendor.body, NOW, NEW, "evil.example"), "host": HOST})
    assert refusal(stranger, "twilio", source) == (401, "bad-signature")


def test_a_json_body_of_twilio_is_signed_by_its_hash_in_the_address():
    body = json_of({"MessageSid": "SM1", "AccountSid": ACCOUNT})
    query = f"bodySHA256={digest(body)}"
    signature = b64(mac(NEW, f"{url('twilio')}?{query}".encode(), "sha1"))
    headers = {"x-twilio-signature": signature, "host": HOST}
    request = Request("POST", "/webhooks/twilio", query.encode(), headers, body, NOW)
    OPEN["twilio"].verify(request)
    assert refusal(changed(request, body=body + b" "), "twilio") == (401, "bad-signature")
    assert refusal(changed(request, query=query.encode() + b"&x=1"), "twilio") == (401, "bad-signature")
    assert refusal(changed(request, query=b""), "twilio")[0] in (400, 401)
    other = query.replace(digest(body), digest(b"{}")).encode()
    assert refusal(changed(request, query=other, body=b"{}"), "twilio") == (401, "bad-signature")


def test_twilios_newer_way_of_signing_is_known_and_others_are_not():
    body = VENDORS["twilio"].body
    tail = "".join(name + value for name, value in sorted(parse_qsl(body.decode())))
    headers = {
        "x-twilio-signature": b64(mac(NEW, (url("twilio") + tail).encode())),
        "x-twilio-webhooks-signature-settings": "key=k1,algorithm=HMAC_SHA256",
        "host": HOST,
    }
    request = Request("POST", "/webhooks/twilio", b"", headers, body, NOW)
    OPEN["twilio"].verify(request)
    unknown = with_(request, x_twilio_webhooks_signature_settings="algorithm=MD5")
    assert refusal(unknown, "twilio") == (401, "bad-signature")


def test_hubspot_signs_its_address_with_some_escapes_decoded():
    for plain, came in (("/a:b", b"to=%2Fa%3Ab"), ("/a b", b"to=%2fa b")):
        stamp = str(NOW * 1000)
        body = VENDORS["hubspot"].body
        signed = f"POST{url('hubspot')}?to={plain}".encode() + body + stamp.encode()
        headers = {"host": HOST, "x-hubspot-request-timestamp": stamp, "x-hubspot-signature-v3": b64(mac(NEW, signed))}
        OPEN["hubspot"].verify(Request("POST", "/webhooks/hubspot", came, headers, body, NOW))


def old_hubspot(version, secret=NEW):
    body = VENDORS["hubspot"].body
    signed = secret.encode() + (b"POST" + url("hubspot").encode() if version == "v2" else b"") + body
    headers = {
        "host": HOST,
        "x-hubspot-signature": hashlib.sha256(signed).hexdigest(),
        "x-hubspot-signature-version": version,
    }
    return Request("POST", "/webhooks/hubspot", b"", headers, body, NOW)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_hubspots_old_signatures_are_good_behind_a_switch_only(version):
    assert refusal(old_hubspot(version), "hubspot") == (401, "missing-signature")
    sources = opened(hubspot={"secrets": NEW, "legacy": True})
    sources["hubspot"].verify(old_hubspot(version))
    assert refusal(old_hubspot(version, OTHER), "hubspot", sources) == (401, "bad-signature")
    bad_new = {"x-hubspot-signature-v3": "AAAA", "x-hubspot-request-timestamp": str(NOW * 1000)}
    both = changed(old_hubspot(version), headers={**old_hubspot(version).headers, **bad_new})
    assert refusal(both, "hubspot", sources) == (401, "bad-signature")
    third = with_(old_hubspot(version), x_hubspot_signature_version="v4")
    assert refusal(third, "hubspot", sources) == (401, "bad-signature")


# Vapi and senders of other making


@pytest.mark.parametrize(
    "headers", [{"x-vapi-secret": NEW}, {"authorization": f"Bearer {NEW}"}, {"authorization": f"bearer  {NEW} "}]
)
def test_vapis_secret_may_be_sent_along(headers):
    sources = opened(vapi={"secrets": [OLD, NEW]})
    request = Request("POST", "/webhooks/vapi", b"", headers, b"{}", NOW)
    sources["vapi"].verify(request)
    for name, value in headers.items():
        assert name in sources["vapi"].secret_headers
        assert name not in sources["vapi"].kept_headers
        for other in (value + "x", value[:-3], value.replace("new", "NEW"), "☃"):
            reason = "missing-signature" if other == "☃" and name == "authorization" else "bad-signature"
            assert refusal(changed(request, headers={name: other}), "vapi", sources) == (401, reason)
    for none in ({}, {"authorization": f"Basic {NEW}"}, {"authorization": NEW}, {"x-vapi-secret": ""}):
        assert refusal(changed(request, headers=none), "vapi", sources) == (401, "missing-signature")


@pytest.mark.parametrize("unit", [1, 1000])
def test_vapis_time_may_be_in_seconds_or_milliseconds(unit):
    body = VENDORS["vapi"].body
    stamp = str(NOW * unit)
    headers = {"x-timestamp": stamp, "x-signature": mac(NEW, stamp.encode() + b"." + body).hex()}
    request = Request("POST", "/webhooks/vapi", b"", headers, body, NOW)
    OPEN["vapi"].verify(request)
    assert refusal(changed(request, received_at=NOW + 301), "vapi") == (401, "timestamp-too-old")
    assert refusal(changed(request, received_at=NOW - 301), "vapi") == (401, "timestamp-in-the-future")


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64", "base64url"])
def test_a_sender_may_sign_in_many_ways(algorithm, encoding):
    import base64

    template = "{method}|{url}|{query}|{header:X-Id}|{body}"
    sender = {"secrets": NEW.encode().hex(), "secret_encoding": "hex", "algorithm": algorithm, "encoding": encoding}
    sources = opened(hmac={"mine": {**sender, "template": template, "header": "X-Sig", "prefix": "hmac "}})
    made = mac(NEW, b"POST|https://hooks.example.com/webhooks/hmac/mine?a=%20b|a=%20b|id-1|{}", algorithm)
    text = {"hex": made.hex(), "base64": b64(made), "base64url": base64.urlsafe_b64encode(made).decode()}[encoding]
    headers = {"host": HOST, "x-id": "id-1", "x-sig": f"hmac {text}"}
    request = Request("POST", "/webhooks/hmac/mine", b"a=%20b", headers, b"{}", NOW, "mine")
    sources["hmac"].verify(request)
    for spoiled in (
        changed(request, query=b"a=%20c"),
        changed(request, method="PUT"),
        changed(request, path="/webhooks/hmac/other"),
        with_(request, x_id="id-2"),
        with_(request, x_sig=text),
    ):
        assert refusal(spoiled, "hmac", sources) == (401, "bad-signature")
    assert refusal(changed(request, account="other"), "hmac", sources) == (401, "unknown-account")


@pytest.mark.parametrize(
    ("sender", "said"),
    [
        ({"template": "{timestamp}", "timestamp_header": "x-time"}, "without {body}"),
        ({"template": "{body}{nonce}"}, "names {nonce}"),
        ({"template": "{body}{header:x y}"}, "names {header:x y}"),
        ({"template": "{timestamp}{body}"}, "belong together"),
        ({"template": "{body}", "timestamp_header": "x-time"}, "belong together"),
        ({"secrets": "zz", "secret_encoding": "hex"}, "is not a secret"),
        ({"secrets": "!", "secret_encoding": "base64"}, "is not a secret"),
        ({"objects": {"a": "Contact"}}, "Contact"),
        ({"objects": {"a": "Job.afterInsert"}}, "Job"),
        ({"objects": {"a": "Contact.changed"}}, "changed"),
    ],
)
def test_a_sender_that_would_let_itself_be_forged_is_a_configuration_error(sender, said):
    with pytest.raises(ConfigError, match="mine") as caught:
        opened(hmac={"mine": {"secrets": NEW, **sender}})
    assert said in str(caught.value)


# Questions


def ask(name, query, sources=OPEN):
    return sources[name].challenge(Request("GET", f"/webhooks/{name}", query.encode(), {}, b"", NOW))


def unanswered(name, query, sources=OPEN):
    with pytest.raises(IntakeRefused) as caught:
        ask(name, query, sources)
    return caught.value.status, caught.value.reason


def test_linkedin_is_answered_with_the_hmac_of_its_code():
    code = "890e4665-4dfe-4ab1-b689-ed553bceeed0"
    reply = ask("linkedin", f"challengeCode={code}&applicationId=5")
    assert json.loads(reply.body) == {"challengeCode": code, "challengeResponse": mac(OLD, code.encode()).hex()}
    assert (reply.status, reply.content_type) == (200, "application/json")


def test_linkedins_question_signs_nothing_that_could_be_a_delivery():
    forged = b"hmacsha256=" + VENDORS["linkedin"].body
    for code in (forged.decode(), "", "x", "890e4665-4dfe-4ab1-b689-ed553bceeed0\n", "{890e4665}"):
        assert unanswered("linkedin", urlencode({"challengeCode": code})) == (401, "wrong-challenge")
    twice = "challengeCode=890e4665-4dfe-4ab1-b689-ed553bceeed0&" * 2
    assert unanswered("linkedin", twice) == (401, "wrong-challenge")
    assert unanswered("linkedin", "challengeCode=x", opened()) == (401, "no-secret")


def test_meta_is_answered_with_its_own_word():
    good = {"hub.mode": "subscribe", "hub.verify_token": "a word", "hub.challenge": "1158201444"}
    reply = ask("meta", urlencode(good))
    assert (reply.status, reply.body) == (200, b"1158201444")
    for name, value in [
        ("hub.mode", "unsubscribe"),
        ("hub.verify_token", "another"),
        ("hub.verify_token", "☃"),
        ("hub.verify_token", ""),
        ("hub.challenge", "<script>"),
        ("hub.challenge", ""),
        ("hub.challenge", "1" * 300),
    ]:
        assert unanswered("meta", urlencode({**good, name: value})) == (401, "wrong-challenge")
    assert unanswered("meta", "") == (401, "wrong-challenge")
    assert unanswered("meta", "a=" + "b" * 5000) == (401, "wrong-challenge")
    assert unanswered("meta", "hub.verify_token=", opened()) == (401, "no-secret")


def test_slack_is_answered_only_when_it_signed_its_question():
    body = json_of({"type": "url_verification", "challenge": "3eZb", "token": "x"})
    reply = OPEN["slack"].challenge(VENDORS["slack"].request(body))
    assert (reply.status, reply.body) == (200, b"3eZb")
    with pytest.raises(IntakeRefused, match="does not fit"):
        OPEN["slack"].challenge(VENDORS["slack"].request(body, secret=OTHER))
    assert OPEN["slack"].challenge(VENDORS["slack"].request()) is None
    mentioned = json_of({**json.loads(VENDORS["slack"].body), "text": "url_verification"})
    assert OPEN["slack"].challenge(VENDORS["slack"].request(mentioned)) is None


# The vendors' own libraries, and vectors that were published


def test_twilios_own_library_agrees():
    validator = pytest.importorskip("twilio.request_validator").RequestValidator(NEW)
    signature = validator.compute_signature(url("twilio"), SMS)
    request = with_(VENDORS["twilio"].request(), x_twilio_signature=signature)
    OPEN["twilio"].verify(request)


def test_slacks_own_library_agrees():
    signature = pytest.importorskip("slack_sdk.signature")
    made = signature.SignatureVerifier(NEW).generate_signature(timestamp=str(NOW), body=VENDORS["slack"].body)
    OPEN["slack"].verify(with_(VENDORS["slack"].request(), x_slack_signature=made))


def test_svixs_own_library_agrees():
    from datetime import UTC, datetime

    webhook = pytest.importorskip("svix.webhooks").Webhook(standard(NEW))
    body = VENDORS["resend"].body
    made = webhook.sign("msg_1", datetime.fromtimestamp(NOW, UTC), body.decode())
    OPEN["resend"].verify(with_(VENDORS["resend"].request(), svix_signature=made))


def test_stripes_own_library_agrees():
    stripe = pytest.importorskip("stripe")
    request = VENDORS["stripe"].request(at=time.time(), now=time.time())
    OPEN["stripe"].verify(request)
    body, header = request.body.decode(), request.headers["stripe-signature"]
    assert stripe.WebhookSignature.verify_header(body, header, NEW, 300)


def test_hubspots_own_library_agrees():
    signature = pytest.importorskip("hubspot.utils.signature").Signature
    body = VENDORS["hubspot"].body.decode()
    stamp = str(NOW * 1000)
    made = signature.get_signature(NEW, body, "v3", url("hubspot"), "POST", stamp)
    OPEN["hubspot"].verify(with_(VENDORS["hubspot"].request(), x_hubspot_signature_v3=made))
    sources = opened(hubspot={"secrets": NEW, "legacy": True})
    for version in ("v1", "v2"):
        made = signature.get_signature(NEW, body, version, url("hubspot"), "POST")
        sources["hubspot"].verify(with_(old_hubspot(version), x_hubspot_signature=made))


def vectors():
    root = os.environ.get("CIRCUIT_SHARED")
    if not root:
        pytest.skip("CIRCUIT_SHARED does not name the folder with the vendors' contracts")
    return json.loads(Path(root, "specs/signature_vectors.json").read_text())["vectors"]


SOURCE_OF = {
    "standard-webhooks/svix": "resend",
    "twilio": "twilio",
    "slack": "slack",
    "hubspot": "hubspot",
    "github": "github",
    "stripe": "stripe",
    "linkedin": "linkedin",
    "vapi": "vapi",
    "ghl": "gohighlevel",
}


def of_vector(vector):
    """The source with the vector's secret, and its request."""
    name = next(source for begin, source in SOURCE_OF.items() if vector["vendor"].startswith(begin))
    headers = {each.lower(): value for each, value in vector["headers"].items()}
    if name == "gohighlevel":
        body = Path(os.environ["CIRCUIT_SHARED"], "specs", vector["body_file"]).read_bytes()
        sources = opened(gohighlevel={"public_key": vector["public_key_pem"]})
        return name, sources, Request("POST", "/webhooks/gohighlevel", b"", headers, body, 0.0)
    if name == "resend":
        headers = {each.replace("webhook-", "svix-"): value for each, value in headers.items()}
    settings = {"secrets": vector["secret"]}
    if name == "hubspot":
        settings["legacy"] = True
    if name == "vapi":
        settings["auth"] = "hmac"
    whole, _, query = vector.get("url", "").partition("?")
    if whole:
        settings["url"] = whole
    body = urlencode(vector["form"]).encode() if "form" in vector else vector["body"].encode()
    stamps = [headers.get(each) for each in ("svix-timestamp", "x-slack-request-timestamp")]
    stamps += [str(int(headers.get(each, 0)) / 1000) for each in ("x-hubspot-request-timestamp", "x-timestamp")]
    stamps.append(headers.get("stripe-signature", "t=0,").partition(",")[0][2:])
    now = max(float(each) for each in stamps if each)
    return name, opened(**{name: settings}), Request("POST", f"/webhooks/{name}", query.encode(), headers, body, now)


def test_every_shared_vector_verifies_and_none_of_its_mutants():
    seen = set()
    for vector in vectors():
        name, sources, request = of_vector(vector)
        seen.add(name)
        sources[name].verify(request)
        assert refusal(changed(request, body=request.body + b"x"), name, sources)[0] in (400, 401)
        for header, value in request.headers.items():
            if header in ("x-hubspot-signature-version", "x-slack-retry-num"):
                continue
            end = value.partition(",v0")[0]
            for spoiled in (end[:-2], end[:-3] + ("A" if end[-3] != "A" else "B") + end[-2:], "☃", ""):
                assert refusal(with_(request, **{header: spoiled}), name, sources)[0] == 401, (name, header, spoiled)
            assert refusal(without(request, header), name, sources) == (401, "missing-signature")
    assert seen == set(SOURCE_OF.values())


def test_the_shared_answer_to_linkedins_question_is_ours():
    vector = next(each for each in vectors() if each["vendor"] == "linkedin")
    reply = ask("linkedin", f"challengeCode={vector['challengeCode']}", opened(linkedin={"secrets": vector["secret"]}))
    assert json.loads(reply.body)["challengeResponse"] == vector["challengeResponse"]
