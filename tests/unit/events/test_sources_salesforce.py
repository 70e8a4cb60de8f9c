"""Outbound messages: SOAP from strangers, a secret in the address, and the acknowledgement."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.config import SourceSettings
from circuit_script.errors import ConfigError, IntakeRefused
from circuit_script.events.sources import EventDraft, Request, open_sources
from circuit_script.events.sources.salesforce import DEEPEST, MOST_ELEMENTS, Element, Salesforce, read_xml
from tests.signing import NEW, NOW, OLD, ORGANIZATION, OTHER, SETTINGS, outbound

SOURCE = open_sources(SETTINGS)["salesforce"]
DEAL = (
    "<sf:Id>006A</sf:Id><sf:Name>Möbel &amp; Söhne</sf:Name><sf:Amount>50000.0</sf:Amount>"
    '<sf:StageName>Won</sf:StageName><sf:Score__c>7</sf:Score__c><sf:Description xsi:nil="true"/>'
)


def request(body, account=NEW):
    return Request("POST", f"/webhooks/salesforce/{account}", b"", {"content-type": "text/xml"}, body, NOW, account)


def parse(body, account=NEW):
    asked = request(body, account)
    return SOURCE.parse(asked, SOURCE.verify(asked))


def refusal(body, account=NEW):
    with pytest.raises(IntakeRefused) as caught:
        parse(body, account)
    return caught.value.status, caught.value.reason


def test_a_message_becomes_events_with_our_names():
    body = outbound(DEAL, "<sf:Id>006B</sf:Id><sf:ContactId>003C</sf:ContactId>")
    parsed = parse(body)
    assert parsed.account == ORGANIZATION
    assert parsed.events == (
        EventDraft("Opportunity", "afterUpdate", "006A", "006A"),
        EventDraft("Opportunity", "afterUpdate", "006B", "003C"),
    )
    first, second = SOURCE.records(body)
    assert first == {
        "id": "006A",
        "name": "Möbel & Söhne",
        "monetaryValue": "50000.0",
        "pipelineStageId": "Won",
        "Score__c": "7",
        "Description": None,
    }
    assert second == {"id": "006B", "contactId": "003C"}


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_while_secrets_rotate_each_address_is_good(secret):
    assert parse(outbound(DEAL), secret).account == ORGANIZATION


@pytest.mark.parametrize("secret", [OTHER, "", None, NEW + "x", NEW[:-1], "☃", NEW.upper()])
def test_another_address_is_refused(secret):
    assert refusal(outbound(DEAL), secret) == (401, "bad-signature")


def test_the_secret_of_one_organization_opens_nothing_for_another():
    assert refusal(outbound(DEAL, organization="00Dxx0000009999EAA")) == (401, "unknown-account")
    assert refusal(outbound(DEAL, organization="")) == (401, "unknown-account")
    assert parse(outbound(DEAL, organization=ORGANIZATION[:15])).account == ORGANIZATION


def test_a_message_that_is_sent_again_has_the_same_id_and_another_one_has_another():
    once, twice, other = (parse(each).vendor_id for each in (outbound(DEAL), outbound(DEAL), outbound(DEAL, ids="x")))
    assert once == twice == "04l0"
    assert other != once
    assert parse(outbound(DEAL, DEAL)).vendor_id not in (None, once)


def test_a_record_that_was_just_made_is_new():
    made = "<sf:Id>1</sf:Id><sf:CreatedDate>2026-01-01T00:00:00.000Z</sf:CreatedDate>"
    changed = "<sf:LastModifiedDate>2026-01-0{}T00:00:00.000Z</sf:LastModifiedDate>"
    events = [parse(outbound(made + changed.format(day))).events[0].event for day in (1, 2)]
    assert events == ["afterInsert", "afterUpdate"]
    assert parse(outbound(made)).events[0].event == "afterUpdate"


def test_a_hundred_notifications_are_taken_and_no_more():
    assert len(parse(outbound(*[DEAL] * 100)).events) == 100
    assert refusal(outbound(*[DEAL] * 101)) == (400, "too-many-events")


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
LEAK = '<!DOCTYPE x [<!ENTITY leak SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not-xml"),
        (b"{}", "not-xml"),
        (b"<a>", "not-xml"),
        (b"<a></b>", "not-xml"),
        (b"\xff\xfe<\x00a\x00/\x00>\x00", "not-xml"),
        (b"<a/>", "not-xml"),
        (outbound(DEAL, head=BOMB).replace(b"Won", b"&b;"), "not-xml"),
        (outbound(DEAL, head=LEAK).replace(b"Won", b"&leak;"), "not-xml"),
        (outbound(DEAL, head='<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">'), "not-xml"),
        (outbound(DEAL, head="<!DOCTYPE x>"), "not-xml"),
        (outbound(DEAL, head='<?xml-stylesheet href="http://127.0.0.1:1/"?>'), "not-xml"),
        (outbound(DEAL).replace(b"Won", b"&unknown;"), "not-xml"),
        (outbound(DEAL).replace(b"Won", b"\xff"), "not-xml"),
        (outbound(DEAL).replace(b"Won", b"&#0;"), "not-xml"),
        (outbound("<sf:a>" * 100 + "</sf:a>" * 100), "nested-too-deeply"),
        (outbound("<sf:a/>" * (MOST_ELEMENTS + 1)), "nested-too-deeply"),
        (outbound(), "no-events"),
        (outbound(DEAL).replace(b"sObject", b"other"), "no-events"),
        (outbound(DEAL).replace(b"OrganizationId", b"Other"), "no-events"),
        (outbound("<sf:Id>" + "x" * 300 + "</sf:Id>"), "unusable-identifier"),
        (outbound(DEAL).replace(b"2005/09/outbound", b"1999/outbound"), "not-xml"),
    ],
)
def test_hostile_xml_is_refused_with_its_reason(body, reason):
    assert refusal(body) == (400, reason)


def test_an_encoding_that_the_document_claims_is_not_believed():
    body = outbound(DEAL).replace(b'encoding="UTF-8"', b'encoding="UTF-7"').replace(b"Won", b"+AGEAYgBj-")
    assert SOURCE.records(body)[0]["pipelineStageId"] == "+AGEAYgBj-"


def outcome(read, body):
    """What was read, or why it was refused; any other exception is a fault."""
    try:
        return read(body)
    except IntakeRefused as refused:
        return refused.status, refused.reason


@given(st.binary(max_size=200) | st.text(alphabet="<>/=\"'&;!?[] abx:-").map(str.encode))
def test_any_bytes_are_a_document_or_refused(body):
    found = outcome(read_xml, body)
    assert isinstance(found, Element) or found in [(400, "not-xml"), (400, "nested-too-deeply")]


@given(st.text(max_size=20), st.integers(0, DEEPEST * 2))
def test_whatever_a_field_holds_it_is_a_record_or_refused(text, depth):
    escaped = "".join(f"&#{ord(each)};" for each in text)
    body = outbound(f"<sf:Id>1</sf:Id><sf:F>{'<sf:G>' * depth}{escaped}{'</sf:G>' * depth}</sf:F>")
    found = outcome(SOURCE.records, body)
    assert found[0] == 400 or found[0]["id"] == "1"


def test_a_secret_that_can_be_guessed_is_a_configuration_error():
    with pytest.raises(ConfigError, match="less than 24"):
        Salesforce({ORGANIZATION: ("short",)})
    with pytest.raises(ConfigError, match="the same secret"):
        Salesforce({ORGANIZATION: (NEW,), "00D2": (NEW,)})
    settings = SourceSettings.model_validate({"salesforce": {"secrets": {ORGANIZATION: NEW}}})
    assert NEW not in repr(settings)


def test_the_acknowledgements_are_well_formed_and_say_yes_and_no():
    for reply, said in ((SOURCE.taken, "true"), (SOURCE.later, "false")):
        (body,) = read_xml(reply.body).children
        (response,) = body.children
        assert response.name == "http://soap.sforce.com/2005/09/outbound notificationsResponse"
        assert [each.text for each in response.children] == [said]
        assert reply.status == 200


def test_the_shared_example_is_parsed():
    root = os.environ.get("CIRCUIT_SHARED")
    if not root:
        pytest.skip("CIRCUIT_SHARED does not name the folder with the vendors' contracts")
    folder = Path(root, "specs/salesforce/webhooks")
    body = (folder / "outbound_message.opportunity.xml").read_bytes()
    parsed = parse(body)
    assert parsed.vendor_id == "04lxx00000000C6AAI"
    assert parsed.events == (EventDraft("Opportunity", "afterUpdate", "006xx000001SvQyAAK", "006xx000001SvQyAAK"),)
    theirs = read_xml((folder / "outbound_message.ack.xml").read_bytes())
    assert read_xml(SOURCE.taken.body) == theirs
