import base64
import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.config import GoHighLevelSettings, SourceSettings
from circuit_script.errors import ConfigError, IntakeRefused
from circuit_script.events.sources import EventDraft, Request, open_sources
from circuit_script.events.sources.gohighlevel import VENDOR_LEGACY_KEY, GoHighLevel

PRIVATE = Ed25519PrivateKey.from_private_bytes(sha256(b"a throwaway key").digest())
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
OLD_PRIVATE = generate_private_key(65537, 2048)
OLD_PEM = OLD_PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
SOURCE = GoHighLevel(PEM)
CONTACT = {
    "type": "ContactCreate",
    "locationId": "L1",
    "webhookId": "W1",
    "timestamp": "2020-01-01T00:00:00Z",
    "id": "C1",
    "email": "ada@example.com",
    "customFields": [{"id": "budget", "value": "9000"}, {"id": "email", "value": "other"}],
}


def body_of(**changes):
    return json.dumps({**CONTACT, **changes}).encode()


def signed(body, private=PRIVATE):
    return {"x-ghl-signature": base64.b64encode(private.sign(body)).decode()}


def signed_the_old_way(body):
    return {"x-wh-signature": base64.b64encode(OLD_PRIVATE.sign(body, PKCS1v15(), SHA256())).decode()}


def request(headers, body, at=0.0):
    return Request("POST", "/webhooks/gohighlevel", b"", headers, body, at)


def refusal(source, headers, body):
    with pytest.raises(IntakeRefused) as caught:
        source.verify(request(headers, body))
    return caught.value.status, caught.value.reason


def shared(path):
    root = os.environ.get("CIRCUIT_SHARED")
    if not root:
        pytest.skip("CIRCUIT_SHARED does not name the folder with the vendors' contracts")
    return Path(root, "specs", path)


def draft(**changes):
    parsed = SOURCE.parse(request({}, body_of(**changes)))
    assert len(parsed.events) == 1
    return parsed.events[0]


def test_a_body_signed_by_the_vendor_is_accepted():
    body = body_of()
    SOURCE.verify(request(signed(body), body))


@pytest.mark.parametrize(
    "text",
    [PEM, PEM.replace("\n", "\\n"), "".join(PEM.splitlines()[1:-1])],
    ids=["PEM", "PEM on one line", "base64 of the DER"],
)
def test_the_key_may_be_written_in_three_ways(text):
    GoHighLevel(text).verify(request(signed(b"{}"), b"{}"))


def test_the_vendors_current_key_is_the_default():
    source = open_sources(SourceSettings())["gohighlevel"]
    assert refusal(source, signed(b"{}"), b"{}") == (401, "bad-signature")


@pytest.mark.parametrize("text", ["", "AAAA", "not base64", OLD_PEM])
def test_a_key_that_is_none_is_a_configuration_error(text):
    with pytest.raises(ConfigError, match="public_key"):
        GoHighLevel(text)


def test_a_legacy_key_that_is_not_rsa_is_a_configuration_error():
    with pytest.raises(ConfigError, match="legacy_key"):
        GoHighLevel(PEM, PEM)


def test_a_missing_signature_is_refused():
    assert refusal(SOURCE, {}, b"{}") == (401, "missing-signature")


@pytest.mark.parametrize("signature", ["", "AAAA", "é", "!" * 88, "A" * 86 + "==", "A" * 5000])
def test_a_malformed_signature_is_refused(signature):
    assert refusal(SOURCE, {"x-ghl-signature": signature}, b"{}") == (401, "bad-signature")


@given(st.binary(min_size=1, max_size=200), st.data())
def test_one_flipped_bit_anywhere_is_refused(body, data):
    place = data.draw(st.integers(0, len(body) * 8 - 1))
    changed = bytearray(body)
    changed[place // 8] ^= 1 << place % 8
    assert refusal(SOURCE, signed(body), bytes(changed)) == (401, "bad-signature")


@given(st.data())
def test_one_changed_character_of_a_signature_is_refused(data):
    """Base64 has bits that nobody reads: a signature has one spelling all the same."""
    text = signed(b"{}")["x-ghl-signature"]
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABQRgwxyz019+/=-_ é").filter(lambda each: each != text[place]))
    for spoiled in (text[:place] + letter + text[place + 1 :], text[:place] + text[place + 1 :], text + letter):
        assert refusal(SOURCE, {"x-ghl-signature": spoiled}, b"{}") == (401, "bad-signature")


def test_an_old_timestamp_in_the_body_is_not_held_against_it():
    body = body_of(timestamp="1999-01-01T00:00:00Z")
    SOURCE.verify(request(signed(body), body, 4e9))


def test_the_legacy_signature_is_refused_unless_it_is_switched_on():
    assert refusal(SOURCE, signed_the_old_way(b"{}"), b"{}") == (401, "missing-signature")
    GoHighLevel(PEM, OLD_PEM).verify(request(signed_the_old_way(b"{}"), b"{}"))


def test_a_wrong_legacy_signature_is_refused():
    assert refusal(GoHighLevel(PEM, OLD_PEM), signed_the_old_way(b"[]"), b"{}") == (401, "bad-signature")


@pytest.mark.parametrize("current", ["", "AAAA", "A" * 86 + "=="])
def test_the_legacy_signature_never_helps_a_bad_current_one(current):
    headers = {"x-ghl-signature": current, **signed_the_old_way(b"{}")}
    assert refusal(GoHighLevel(PEM, OLD_PEM), headers, b"{}") == (401, "bad-signature")


def test_the_switch_alone_takes_the_key_that_the_vendor_published():
    settings = SourceSettings(gohighlevel=GoHighLevelSettings(public_key=PEM, legacy=True))
    source = open_sources(settings)["gohighlevel"]
    assert refusal(source, signed_the_old_way(b"{}"), b"{}") == (401, "bad-signature")
    source.verify(request(signed(b"{}"), b"{}"))


def test_the_published_legacy_key_is_the_one_of_the_vendors_documentation():
    path = shared("ghl/webhook_public_key_rsa_legacy.pem")
    assert path.read_text().strip() == VENDOR_LEGACY_KEY.strip()


def test_the_shared_vector_verifies():
    vectors = json.loads(shared("signature_vectors.json").read_text())["vectors"]
    vector = next(each for each in vectors if each["vendor"].startswith("ghl"))
    body = shared(vector["body_file"]).read_bytes()
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    source = GoHighLevel(vector["public_key_pem"])
    source.verify(request(headers, body))
    assert refusal(source, headers, body + b" ") == (401, "bad-signature")


def test_a_contact_is_one_event_of_its_account():
    parsed = SOURCE.parse(request({}, body_of()))
    assert (parsed.account, parsed.vendor_id) == ("L1", "W1")
    assert parsed.events == (EventDraft("Contact", "afterInsert", "C1", "C1"),)


@pytest.mark.parametrize(
    ("type_", "object_", "event"),
    [
        ("ContactUpdate", "Contact", "afterUpdate"),
        ("ContactDndUpdate", "Contact", "afterUpdate"),
        ("ContactTagUpdate", "Contact", "afterUpdate"),
        ("ContactDelete", "Contact", "afterDelete"),
        ("OpportunityStageUpdate", "Opportunity", "afterUpdate"),
        ("OpportunityMonetaryValueUpdate", "Opportunity", "afterUpdate"),
        ("NoteDelete", "Note", "afterDelete"),
        ("TaskComplete", "Task", "afterUpdate"),
        ("InboundMessage", "Message", "afterInsert"),
        ("OutboundMessage", "Message", "afterInsert"),
        ("ObjectSchemaCreate", "ObjectSchema", "afterInsert"),
        ("ContactlessUpdate", "Contactless", "afterUpdate"),
        ("INSTALL", "App", "afterInsert"),
        ("UNINSTALL", "App", "afterDelete"),
        ("PLAN_CHANGE", "App", "afterUpdate"),
        ("InvoicePartiallyPaid", "Invoice", "afterUpdate"),
        ("ConversationUnreadWebhook", "Conversation", "afterUpdate"),
        ("LCEmailStats", "EmailStats", "afterInsert"),
        ("Create", "Create", "unknown"),
        ("", "unknown", "unknown"),
        (None, "unknown", "unknown"),
        (["ContactCreate"], "unknown", "unknown"),
    ],
)
def test_the_vendors_type_names_object_and_event(type_, object_, event):
    assert (draft(type=type_).object, draft(type=type_).event) == (object_, event)


@pytest.mark.parametrize("type_", ["NoteCreate", "TaskCreate", "OpportunityCreate", "InboundMessage"])
def test_what_hangs_on_a_contact_is_ordered_by_it(type_):
    assert draft(type=type_, contactId="P1").order_key == "P1"
    assert draft(type=type_, contactId=None).order_key == draft(type=type_).record
    assert draft(type="ContactUpdate", contactId="P1").order_key == "C1"


def test_an_appointment_is_nested():
    body = json.dumps(
        {"type": "AppointmentCreate", "locationId": "L1", "appointment": {"id": "A1", "contactId": "P1"}}
    ).encode()
    assert SOURCE.parse(request({}, body)).events == (EventDraft("Appointment", "afterInsert", "A1", "P1"),)
    assert SOURCE.records(body) == [{"id": "A1", "contactId": "P1"}]


def test_a_message_without_an_id_gets_the_same_one_when_it_is_sent_again():
    body = {"type": "InboundMessage", "locationId": "L1", "contactId": "P1", "body": "hello"}
    first = json.dumps({**body, "webhookId": "W1", "timestamp": "1"}).encode()
    again = json.dumps({"webhookId": "W2", "timestamp": "2", **body}).encode()
    other = json.dumps({**body, "body": "hello you"}).encode()
    ids = [SOURCE.parse(request({}, each)).events[0].record for each in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert [SOURCE.records(each)[0]["id"] for each in (first, again, other)] == ids


def test_the_record_is_the_payload_without_its_envelope_and_with_its_custom_fields():
    (record,) = SOURCE.records(body_of())
    assert record == {
        "id": "C1",
        "email": "ada@example.com",
        "budget": "9000",
        "customFields": CONTACT["customFields"],
    }


def test_custom_fields_that_are_not_as_documented_are_left_alone():
    (record,) = SOURCE.records(body_of(customFields=[1, {"id": 7, "value": 1}, {"id": "x"}, None]))
    assert "x" not in record
    assert SOURCE.records(body_of(customFields="none"))[0]["customFields"] == "none"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not-json"),
        (b"{", "not-json"),
        (b"\xff", "not-json"),
        (b'{"id": "\xff"}', "not-json"),
        (b'{"id": NaN}', "not-json"),
        (b'{"a": "\\ud800", "id": NaN}', "not-json"),
        (b'{"a": "\\ud800", "b": 1e999}', "not-json"),
        (b"[]", "not-an-object"),
        (b'"text"', "not-an-object"),
        (b"[" * 100_000, "nested-too-deeply"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested-too-deeply"),
        (b'{"id": "C\\u0000"}', "unusable-identifier"),
        (b'{"id": "' + b"x" * 256 + b'"}', "unusable-identifier"),
        ('{"id": "' + "é" * 128 + '"}', "unusable-identifier"),
        (b'{"webhookId": "W\\u0000"}', "unusable-identifier"),
        (b'{"type": "' + b"x" * 256 + b'"}', "unusable-identifier"),
    ],
)
def test_what_is_not_a_delivery_is_refused_with_its_reason(body, reason):
    with pytest.raises(IntakeRefused) as caught:
        SOURCE.parse(request({}, body if isinstance(body, bytes) else body.encode()))
    assert (caught.value.status, caught.value.reason) == (400, reason)


def test_text_cut_in_the_middle_of_an_emoji_is_taken_with_a_replacement():
    body = b'{"type": "ContactCreate", "id": "C1", "note": "hi \\ud83d", "ok": "\\ud83d\\ude00", "n": 1.5}'
    assert SOURCE.parse(request({}, body)).events[0].record == "C1"
    assert SOURCE.records(body) == [{"id": "C1", "note": "hi \ufffd", "ok": "\U0001f600", "n": 1.5}]


def test_what_the_database_cannot_hold_is_made_harmless_in_the_record():
    body = b'{"type": "ContactCreate", "id": 7, "a": ["x\\u0000y"], "n": 123456789012345678901}'
    assert SOURCE.records(body) == [{"id": "7", "a": ["x\ufffdy"], "n": "123456789012345678901"}]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_value_in_any_field_is_parsed_or_refused(value):
    for name in ("id", "type", "locationId", "webhookId", "contactId", "messageId", "appointment"):
        with suppress(IntakeRefused):
            parsed = SOURCE.parse(request({}, body_of(**{name: value})))
            (record,) = SOURCE.records(body_of(**{name: value}))
            assert record["id"] == parsed.events[0].record


def test_every_example_of_the_vendor_is_parsed():
    examples = sorted(shared("ghl/webhooks").glob("*.json"))
    assert len(examples) > 60
    objects = set()
    for example in examples:
        body = example.read_bytes()
        (event,) = SOURCE.parse(request({}, body)).events
        (record,) = SOURCE.records(body)
        assert record["id"] == event.record != ""
        objects.add(event.object)
    assert {"Contact", "Opportunity", "Appointment", "Message", "Note", "Task", "App", "EmailStats"} <= objects


INSTALLATION = "ve9EPM428h8vShlRW1KT:otg8dTQqGLh3Q6iQI55w"
# Name of an example → object, event, and where it tells of them, record and order key.
MEANT = {
    "AppInstall": ("App", "afterInsert", INSTALLATION, INSTALLATION),
    "AppUninstall": ("App", "afterDelete", INSTALLATION, INSTALLATION),
    "PlanChange": ("App", "afterUpdate"),
    "AppointmentCreate": ("Appointment", "afterInsert", "0007BWpSzSwfiuSl0tR2", "9NkT25Vor1v4aQatFsv2"),
    "CampaignStatusUpdate": ("Campaign", "afterUpdate", "2hxvXh8Fjc69SvujEWMD", "2hxvXh8Fjc69SvujEWMD"),
    "ContactCreate": ("Contact", "afterInsert", "nmFmQEsNgz6AVpgLVUJ0", "nmFmQEsNgz6AVpgLVUJ0"),
    "ContactDelete": ("Contact", "afterDelete"),
    "ContactDndUpdate": ("Contact", "afterUpdate"),
    "ContactTagUpdate": ("Contact", "afterUpdate"),
    "ConversationUnreadWebhook": ("Conversation", "afterUpdate"),
    "InboundMessage": ("Message", "afterInsert"),
    "OutboundMessage": ("Message", "afterInsert"),
    "ProviderOutboundMessage": ("Message", "afterInsert"),
    "InvoiceCreate": ("Invoice", "afterInsert", "6578278e879ad2646715ba9c", "6578278e879ad2646715ba9c"),
    "InvoiceDelete": ("Invoice", "afterDelete"),
    "InvoicePaid": ("Invoice", "afterUpdate"),
    "InvoicePartiallyPaid": ("Invoice", "afterUpdate"),
    "InvoiceSent": ("Invoice", "afterUpdate"),
    "InvoiceVoid": ("Invoice", "afterUpdate"),
    "LCEmailStats": ("EmailStats", "afterInsert", "ve9EPM428h8vShlRW1KT", "ve9EPM428h8vShlRW1KT"),
    "NoteCreate": ("Note", "afterInsert", "otg8dTQqGLh3Q6iQI55w", "CWBf1PR9LvvBkcYqiXlc"),
    "ObjectSchemaUpdate": ("ObjectSchema", "afterUpdate"),
    "OpportunityStageUpdate": ("Opportunity", "afterUpdate", "wWhVuzqpRuOA1ZVWi4FC", "cJAWDskpkJHbRbhAT7bs"),
    "OpportunityDelete": ("Opportunity", "afterDelete"),
    "OrderStatusUpdate": ("Order", "afterUpdate", "660ed43bfdf9fc05a0de7a40", "660ed43bfdf9fc05a0de7a40"),
    "ProductUpdate": ("Product", "afterUpdate"),
    "RecordCreate": ("Record", "afterInsert", "679b8f9bde6a0c356a0311b3", "679b8f9bde6a0c356a0311b3"),
    "RelationDelete": ("Relation", "afterDelete"),
    "AssociationCreate": ("Association", "afterInsert"),
    "LocationUpdate": ("Location", "afterUpdate"),
    "TaskComplete": ("Task", "afterUpdate", "5HrB1IbmnKMBXloldFuP", "WFwVrSSjZ2CNHbZThQX2"),
    "UserCreate": ("User", "afterInsert"),
}
# Examples that are another's: their `type` is a slip of the documentation.
SLIPS = {"AppointmentDelete", "AppointmentUpdate", "InboundMessage.2", "UserCreate"}


def test_every_example_of_the_vendor_means_what_its_page_says():
    """Some examples leave ``type`` away, which every delivery has."""
    seen = set()
    for example in sorted(shared("ghl/webhooks").glob("*.json")):
        name = example.stem.partition(".")[0]
        if name not in MEANT or example.stem in SLIPS:
            continue
        payload = {"type": name, **json.loads(example.read_bytes())}
        (event,) = SOURCE.parse(request({}, json.dumps(payload).encode())).events
        found = (event.object, event.event, event.record, event.order_key)
        wanted = MEANT[name]
        if example.stem in ("AppInstall.3", "AppUninstall.2", "AppUninstall"):
            wanted = wanted[:2]  # of a company
        assert found[: len(wanted)] == wanted, example.name
        seen.add(name)
    assert seen == set(MEANT)


def test_an_app_is_known_by_where_it_is_installed():
    installed = draft(type="INSTALL", appId="A1", locationId="L1", id=None)
    assert (installed.record, installed.event) == ("A1:L1", "afterInsert")
    removed = draft(type="UNINSTALL", appId="A1", locationId="L1", id=None)
    assert (removed.record, removed.event) == ("A1:L1", "afterDelete")
    assert draft(type="INSTALL", appId="A1", companyId="C9", locationId=None).record == "A1:C9"
