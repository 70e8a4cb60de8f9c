import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from circuit_script.config import SourceSettings, StandardSettings
from circuit_script.errors import ConfigError, IntakeRefused
from circuit_script.events.sources import EventDraft, Request, open_sources
from circuit_script.events.sources.standard import Standard

NOW = 1_800_000_000
OLD, NEW = ("whsec_" + base64.b64encode(bytes([n]) * 24).decode() for n in (1, 2))
SOURCE = Standard({"acme": (OLD, NEW), "other": (NEW,)})
BODY = b'{"type": "Contact.afterInsert", "data": {"id": "C1", "email": "ada@example.com"}}'


def signed(body=BODY, *, secret=NEW, id_="msg_1", at=NOW):
    signature = Webhook(secret).sign(id_, datetime.fromtimestamp(at, UTC), body.decode())
    return {"webhook-id": id_, "webhook-timestamp": str(at), "webhook-signature": signature}


def request(headers, body=BODY, at=NOW, account="acme"):
    return Request("POST", f"/webhooks/standard/{account}", b"", headers, body, at, account)


def refusal(headers, body=BODY, *, source=SOURCE, account="acme", now=NOW):
    with pytest.raises(IntakeRefused) as caught:
        source.verify(request(headers, body, now, account))
    return caught.value.status, caught.value.reason


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_while_secrets_rotate_each_of_them_is_good(secret):
    SOURCE.verify(request(signed(secret=secret), BODY, NOW))


def test_one_good_signature_among_several_is_enough():
    headers = signed()
    headers["webhook-signature"] = f"v1,AAAA v2,x v1a,y {headers['webhook-signature']} v1,BBBB"
    SOURCE.verify(request(headers, BODY, NOW))


def test_an_id_beyond_ascii_is_signed_as_the_bytes_that_came():
    headers = signed(id_="msg_é")
    headers["webhook-id"] = "msg_é".encode().decode("latin-1")
    SOURCE.verify(request(headers, BODY, NOW))


def test_a_secret_of_another_account_is_refused():
    assert refusal(signed(secret=OLD), account="other") == (401, "bad-signature")


@pytest.mark.parametrize("account", ["nobody", "", None])
def test_an_account_without_a_secret_is_refused(account):
    assert refusal(signed(), account=account) == (401, "unknown-account")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed(name):
    headers = signed()
    del headers[name]
    assert refusal(headers) == (401, "missing-signature")


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_timestamp_further_than_five_minutes_away_is_refused(seconds):
    reason = "timestamp-too-old" if seconds < 0 else "timestamp-in-the-future"
    assert refusal(signed(at=NOW + seconds)) == (401, reason)


@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_timestamp_within_five_minutes_is_accepted(seconds):
    SOURCE.verify(request(signed(at=NOW + seconds), BODY, NOW))


@pytest.mark.parametrize("stamp", ["soon", "1e9", "-1", "١٢٣", "1_0", " 1", "9" * 400, "0x1"])
def test_a_timestamp_that_is_no_number_is_refused(stamp):
    assert refusal({**signed(), "webhook-timestamp": stamp}) == (401, "unusable-timestamp")


@pytest.mark.parametrize("listed", ["v1", "v1,", "v1a,AAAA", "é", "v1,é", "AAAA", "v1," + "A" * 44])
def test_a_malformed_signature_is_refused(listed):
    assert refusal({**signed(), "webhook-signature": listed}) == (401, "bad-signature")


@given(st.text(max_size=60), st.text(alphabet="abc_-123", min_size=1, max_size=20))
def test_it_agrees_with_the_standards_own_library(text, id_):
    text = json.dumps(text, ensure_ascii=False)
    body = text.encode()
    headers = signed(body, id_=id_, at=int(datetime.now(UTC).timestamp()))
    now = float(headers["webhook-timestamp"])
    Webhook(NEW).verify(text, headers)
    SOURCE.verify(request(headers, body, now))
    assert refusal(headers, body + b" ", now=now) == (401, "bad-signature")
    assert refusal({**headers, "webhook-id": id_ + "x"}, body, now=now) == (401, "bad-signature")


def test_the_shared_vector_verifies():
    root = os.environ.get("CIRCUIT_SHARED")
    if not root:
        pytest.skip("CIRCUIT_SHARED does not name the folder with the vendors' contracts")
    vectors = json.loads(Path(root, "specs/signature_vectors.json").read_text())["vectors"]
    vector = next(each for each in vectors if each["vendor"].startswith("standard-webhooks"))
    source = Standard({"acme": (vector["secret"],)})
    now = float(vector["headers"]["webhook-timestamp"])
    body = vector["body"].encode()
    source.verify(request(vector["headers"], body, now))
    assert refusal(vector["headers"], body, source=source, now=now + 301) == (401, "timestamp-too-old")


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!", "whsec_é"])
def test_a_secret_that_is_none_is_a_configuration_error(secret):
    with pytest.raises(ConfigError, match="acme"):
        Standard({"acme": (secret,)})


def test_secrets_come_from_the_settings():
    settings = SourceSettings(standard=StandardSettings(secrets={"acme": (NEW,)}))
    open_sources(settings)["standard"].verify(request(signed(), BODY, NOW))


def test_type_names_object_and_event_and_data_is_the_record():
    parsed = SOURCE.parse(request(signed(), BODY))
    assert (parsed.account, parsed.vendor_id) == ("acme", "msg_1")
    assert parsed.events == (EventDraft("Contact", "afterInsert", "C1", "C1"),)
    assert SOURCE.records(BODY) == [{"id": "C1", "email": "ada@example.com"}]


def test_what_hangs_on_a_contact_is_ordered_by_it():
    body = b'{"type": "Task.afterUndelete", "data": {"id": "T1", "contactId": "P1"}}'
    assert SOURCE.parse(request({}, body)).events == (EventDraft("Task", "afterUndelete", "T1", "P1"),)


@pytest.mark.parametrize("type_", ["invoice.paid", "Contact", ".afterInsert", "Contact.", 7, None, {}])
def test_an_unknown_type_is_kept_as_unknown(type_):
    body = json.dumps({"type": type_, "data": {"id": "C1"}}).encode()
    (event,) = SOURCE.parse(request({}, body)).events
    assert event.event == "unknown"
    assert event.record == "C1"


@pytest.mark.parametrize("data", [None, [], "text", 5, {}, {"id": None}])
def test_data_without_an_id_gets_a_stable_one(data):
    body = json.dumps({"type": "Review.afterInsert", "data": data}).encode()
    (event,) = SOURCE.parse(request({}, body)).events
    (record,) = SOURCE.records(body)
    assert event.record == record["id"] != ""
    assert SOURCE.parse(request({}, body)).events == (event,)


def test_what_the_database_cannot_hold_is_made_harmless_in_the_record():
    body = b'{"type": "Contact.afterInsert", "data": {"id": "C1", "a\\u0000": "\\u0000"}}'
    assert SOURCE.records(body) == [{"id": "C1", "a\ufffd": "\ufffd"}]
