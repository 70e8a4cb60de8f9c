"""What the vendors' payloads become: objects, events, records, and by what they are known again."""

import base64
import json
import os
from pathlib import Path
from urllib.parse import urlencode

import pytest

from circuit_script.errors import IntakeRefused
from circuit_script.events.sources import EventDraft, Request, open_sources
from tests.signing import ACCOUNT, CALLBACK, CHANGE, NOW, SETTINGS, SMS, VENDORS, json_of

OPEN = open_sources(SETTINGS)


def parse(name, body, *, headers=None, account=None):
    body = body if isinstance(body, bytes) else json_of(body)
    return OPEN[name].parse(Request("POST", f"/webhooks/{name}", b"", headers or {}, body, NOW, account))


def records(name, body):
    return OPEN[name].records(body if isinstance(body, bytes) else json_of(body))


def one(name, body, **options):
    """The event of a delivery with one, and its record."""
    (event,) = parse(name, body, **options).events
    (record,) = records(name, body)
    assert record["id"] == event.record
    return event, record


def refusal(name, body, **options):
    with pytest.raises(IntakeRefused) as caught:
        parse(name, body, **options)
    return caught.value.status, caught.value.reason


# HubSpot


def test_a_property_of_hubspot_is_an_update_of_that_property():
    event, record = one("hubspot", [CHANGE])
    assert event == EventDraft("Contact", "afterUpdate", "65059681032", "65059681032")
    assert record == {"id": "65059681032", "firstName": "Ada"}
    parsed = parse("hubspot", [CHANGE])
    assert (parsed.account, parsed.vendor_id) == ("12345678", "7:1")


@pytest.mark.parametrize(
    ("type_", "more", "object_", "event"),
    [
        ("contact.creation", {}, "Contact", "afterInsert"),
        ("contact.deletion", {}, "Contact", "afterDelete"),
        ("contact.privacyDeletion", {}, "Contact", "afterDelete"),
        ("contact.restore", {}, "Contact", "afterUndelete"),
        ("contact.merge", {"primaryObjectId": 5}, "Contact", "afterUpdate"),
        ("contact.associationChange", {"objectId": None, "fromObjectId": 5}, "Contact", "afterUpdate"),
        ("deal.creation", {}, "Opportunity", "afterInsert"),
        ("company.propertyChange", {}, "Company", "afterUpdate"),
        ("object.creation", {"objectTypeId": "0-1"}, "Contact", "afterInsert"),
        ("object.propertyChange", {"objectTypeId": "2-99"}, "Object", "afterUpdate"),
        ("conversation.newMessage", {}, "Conversation", "unknown"),
        ("job.creation", {}, "Job", "unknown"),
        ("", {}, "unknown", "unknown"),
        (None, {}, "unknown", "unknown"),
    ],
)
def test_hubspots_subscription_names_object_and_event(type_, more, object_, event):
    found, _ = one("hubspot", [{**CHANGE, "subscriptionType": type_, **more}])
    assert (found.object, found.event) == (object_, event)
    if more.get("primaryObjectId") or more.get("fromObjectId"):
        assert found.record == "5"


def test_a_batch_of_hubspot_is_one_delivery_of_many_events():
    batch = [{**CHANGE, "eventId": n, "objectId": n, "propertyValue": str(n)} for n in range(100)]
    parsed = parse("hubspot", batch)
    assert [each.record for each in parsed.events] == [str(n) for n in range(100)]
    assert [each["firstName"] for each in records("hubspot", batch)] == [str(n) for n in range(100)]
    again = [{**each, "attemptNumber": 1} for each in batch]
    assert parse("hubspot", again).vendor_id == parsed.vendor_id
    assert parse("hubspot", batch[:99]).vendor_id != parsed.vendor_id
    assert parse("hubspot", [{**CHANGE, "eventId": None}]).vendor_id is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([], "no-events"),
        ([CHANGE] * 101, "too-many-events"),
        ([CHANGE, 5], "not-an-object"),
        (5, "not-an-object"),
        ([CHANGE, {**CHANGE, "portalId": 2}], "several-accounts"),
        (b"{", "not-json"),
        (b"[" * 200 + b"]" * 200, "nested-too-deeply"),
    ],
)
def test_what_is_no_batch_of_hubspot_is_refused(body, reason):
    assert refusal("hubspot", body) == (400, reason)


# Twilio


def form(**fields):
    return urlencode({**SMS, **fields}).encode()


def test_a_message_to_us_is_new_and_known_by_its_id_and_state():
    event, record = one("twilio", form())
    assert event == EventDraft("Message", "afterInsert", "SM1", "+14155552345")
    assert record["body"] == "Hello, Zoë & all"
    assert (record["from"], record["to"]) == ("+14155552345", "+14155552344")
    assert (record["status"], record["direction"], record["messageType"]) == ("received", "inbound", "SMS")
    parsed = parse("twilio", form())
    assert (parsed.account, parsed.vendor_id) == (ACCOUNT, "SM1:received")


def test_each_state_of_a_message_of_ours_is_an_update_of_its_own():
    states = ["queued", "sent", "delivered"]
    bodies = [form(MessageStatus=each, SmsStatus=each, ErrorCode="30007") for each in states]
    assert [parse("twilio", each).vendor_id for each in bodies] == [f"SM1:{each}" for each in states]
    event, record = one("twilio", bodies[2])
    assert event == EventDraft("Message", "afterUpdate", "SM1", "+14155552344")
    assert (record["status"], record["direction"], record["errorCode"]) == ("delivered", "outbound", "30007")


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({"OptOutType": "STOP", "Body": "Arrêt"}, "STOP"),
        ({"OptOutType": "START", "Body": "x"}, "START"),
        ({"Body": " stop "}, "STOP"),
        ({"Body": "Unsubscribe"}, "STOP"),
        ({"Body": "START"}, "START"),
        ({"OptOutType": "HELP", "Body": "STOP"}, None),
        ({"Body": "please stop"}, None),
        ({"Body": "yes"}, None),
        ({"Body": "STOP", "MessageStatus": "sent"}, None),
    ],
)
def test_who_wants_no_more_is_an_event_of_its_own(fields, wish):
    body = form(**fields)
    events = parse("twilio", body).events
    if wish is None:
        assert [each.object for each in events] == ["Message"]
        return
    assert events[1] == EventDraft("OptOut", "afterUpdate", "+14155552345", "+14155552345")
    message, opted = records("twilio", body)
    assert message["optOutType"] == wish
    assert opted["optedOut"] is (wish == "STOP")
    assert (opted["id"], opted["phone"], opted["to"]) == ("+14155552345", "+14155552345", "+14155552344")


def test_calls_of_twilio_are_known_by_what_was_asked_too():
    call = {"CallSid": "CA1", "AccountSid": ACCOUNT, "CallStatus": "ringing", "Direction": "inbound"}
    event, record = one("twilio", urlencode(call).encode())
    assert event == EventDraft("Call", "afterInsert", "CA1", "CA1")
    assert record["status"] == "ringing"
    digits = [urlencode({**call, "CallStatus": "in-progress", "Digits": each}).encode() for each in "12"]
    assert one("twilio", digits[0])[0].event == "afterUpdate"
    ids = [parse("twilio", each).vendor_id for each in (*digits, digits[0])]
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize("body", [b"\xff", b"a=" + b"&" * 600, "é=1".encode()])
def test_what_is_no_form_is_refused(body):
    assert refusal("twilio", body) == (400, "not-a-form")


def test_nul_in_a_form_is_made_harmless_or_refused():
    assert records("twilio", form(Body="a\0b"))[0]["body"] == "a\ufffdb"
    assert parse("twilio", form(MessageSid="a\0b")).events[0].record == "a\ufffdb"
    assert refusal("twilio", form(MessageSid="x" * 300)) == (400, "unusable-identifier")


# Vapi


@pytest.mark.parametrize(
    ("message", "object_", "event"),
    [
        ({"type": "status-update", "status": "queued"}, "Call", "afterInsert"),
        ({"type": "status-update", "status": "in-progress"}, "Call", "afterUpdate"),
        ({"type": "end-of-call-report", "endedReason": "hangup"}, "Call", "afterUpdate"),
        ({"type": "hang"}, "Call", "afterUpdate"),
        ({"type": "transcript", "transcript": "Hi"}, "Transcript", "afterInsert"),
        ({"type": "session.created", "session": {"id": "V1"}}, "Session", "afterInsert"),
        ({"type": "assistant-request"}, "AssistantRequest", "unknown"),
        ({"type": "speech-update"}, "SpeechUpdate", "unknown"),
        ({}, "unknown", "unknown"),
    ],
)
def test_vapis_messages_are_of_calls(message, object_, event):
    body = {"message": {**message, "call": {"id": "V1", "orgId": "O1", "assistantId": "A1"}}}
    found, record = one("vapi", body)
    assert (found.object, found.event, found.order_key) == (object_, event, "V1")
    assert record["type" if message else "id"]
    assert parse("vapi", body).account == "O1"
    if object_ == "Call":
        assert found.record == "V1"
        assert record["assistantId"] == "A1"
        assert "call" not in record
    if object_ == "Transcript":
        assert record["transcript"] == "Hi"


def test_a_message_of_vapi_that_has_a_moment_is_taken_once():
    body = {"message": {"type": "hang", "timestamp": 1, "call": {"id": "V1"}}}
    assert parse("vapi", body).vendor_id == parse("vapi", body).vendor_id is not None
    assert parse("vapi", {"message": {"type": "hang", "call": {"id": "V1"}}}).vendor_id is None


# Resend


def test_what_became_of_an_email_is_its_status():
    body = {"type": "email.bounced", "data": {"email_id": "E1", "subject": "Hi", "bounce": {"type": "Permanent"}}}
    event, record = one("resend", body, headers={"svix-id": "msg_1"})
    assert event == EventDraft("Email", "afterUpdate", "E1", "E1")
    assert (record["status"], record["bounce"]) == ("bounced", {"type": "Permanent"})
    assert parse("resend", body, headers={"svix-id": "msg_1"}).vendor_id == "msg_1"
    assert one("resend", {**body, "type": "email.sent"})[0].event == "afterInsert"
    contact = {"type": "contact.deleted", "data": {"id": "C1", "first_name": "Ada"}}
    assert one("resend", contact) == (
        EventDraft("Contact", "afterDelete", "C1", "C1"),
        {"id": "C1", "firstName": "Ada"},
    )


# Slack


def test_messages_of_slack_are_in_order_of_their_channel():
    event, record = one("slack", CALLBACK)
    assert event == EventDraft("Message", "afterInsert", "C1:1708986598.000200", "C1")
    assert record["text"] == "approve 42"
    parsed = parse("slack", CALLBACK)
    assert (parsed.account, parsed.vendor_id) == ("T1", "Ev1")
    inner = CALLBACK["event"]
    changed = {
        **inner,
        "subtype": "message_changed",
        "ts": "9",
        "message": {"ts": inner["ts"], "text": "approve 43"},
    }
    event, record = one("slack", {**CALLBACK, "event": changed})
    assert event == EventDraft("Message", "afterUpdate", "C1:1708986598.000200", "C1")
    assert record["text"] == "approve 43"
    deleted = {**inner, "subtype": "message_deleted", "ts": "9", "deleted_ts": inner["ts"]}
    event, _ = one("slack", {**CALLBACK, "event": deleted})
    assert event == EventDraft("Message", "afterDelete", "C1:1708986598.000200", "C1")


def test_other_events_of_slack_go_by_their_name():
    reaction = {**CALLBACK, "event": {"type": "reaction_added", "user": "U1"}}
    assert one("slack", reaction)[0] == EventDraft("ReactionAdded", "afterInsert", "Ev1", "Ev1")
    command = urlencode({"team_id": "T1", "command": "/score", "text": "42", "trigger_id": "9.1", "channel_id": "C1"})
    event, record = one("slack", command.encode())
    assert event == EventDraft("Command", "afterInsert", "9.1", "C1")
    assert record["text"] == "42"
    pressed = {"type": "block_actions", "team": {"id": "T1"}, "trigger_id": "9.2", "actions": []}
    body = urlencode({"payload": json.dumps(pressed)}).encode()
    assert one("slack", body)[0] == EventDraft("Interaction", "afterInsert", "9.2", "9.2")
    assert (parse("slack", body).account, parse("slack", body).vendor_id) == ("T1", "9.2")
    limited = {"type": "app_rate_limited", "team_id": "T1"}
    assert one("slack", limited)[0].event == "unknown"


# GitHub


@pytest.mark.parametrize(
    ("name", "payload", "object_", "event", "record"),
    [
        ("issues", {"action": "opened", "issue": {"id": 1}}, "Issue", "afterInsert", "1"),
        ("issues", {"action": "closed", "issue": {"id": 1, "node_id": "I_1"}}, "Issue", "afterUpdate", "I_1"),
        ("issues", {"action": "deleted", "issue": {"id": 1}}, "Issue", "afterDelete", "1"),
        (
            "issue_comment",
            {"action": "created", "issue": {"id": 1}, "comment": {"id": 2}},
            "Comment",
            "afterInsert",
            "2",
        ),
        ("pull_request", {"action": "opened", "pull_request": {"id": 3}}, "PullRequest", "afterInsert", "3"),
        ("push", {"after": "abc", "ref": "refs/heads/main"}, "Push", "afterInsert", "abc"),
        ("ping", {"hook_id": 5, "zen": "Keep it"}, "Ping", "unknown", "5"),
        ("quota", {"action": "created", "hook_id": 5}, "Quota", "unknown", "5"),
    ],
)
def test_githubs_header_names_the_object_and_the_action_the_event(name, payload, object_, event, record):
    headers = {"x-github-event": name, "x-github-delivery": "d-1"}
    whole = {**payload, "repository": {"full_name": "acme/shop", "id": 9}}
    for body in (json_of(whole), urlencode({"payload": json.dumps(whole)}).encode()):
        found, _ = one("github", body, headers=headers)
        assert (found.object, found.event, found.record) == (object_, event, record)
        parsed = parse("github", body, headers=headers)
        assert (parsed.account, parsed.vendor_id) == ("acme/shop", "d-1")


# Meta, Stripe, LinkedIn, a sender of its own


def entry(id_="153", **inner):
    return {"id": id_, "time": 1708986598, **inner}


def test_entries_of_meta_become_events():
    lead = {"field": "leadgen", "value": {"leadgen_id": "L1", "form_id": "F1"}}
    feed = {"field": "feed", "value": {"item": "post", "verb": "add"}}
    said = {"sender": {"id": "P1"}, "recipient": {"id": "153"}, "message": {"mid": "m_1", "text": "Hi"}}
    body = {"object": "page", "entry": [entry(changes=[lead, feed]), entry(messaging=[said])]}
    parsed = parse("meta", body)
    assert parsed.account == "153"
    first, second, third = parsed.events
    assert first == EventDraft("Lead", "afterInsert", "L1", "L1")
    assert (second.object, second.event) == ("Feed", "afterUpdate")
    assert third == EventDraft("Message", "afterInsert", "m_1", "P1")
    assert [each["id"] for each in records("meta", body)] == [each.record for each in parsed.events]
    assert parse("meta", body).vendor_id == parsed.vendor_id
    assert refusal("meta", {"entry": []}) == (400, "no-events")
    assert refusal("meta", {"entry": [entry(changes=[feed] * 1001)]}) == (400, "too-many-events")
    mixed = {"entry": [entry(changes=[lead]), entry("154", changes=[lead])]}
    assert refusal("meta", mixed) == (400, "several-accounts")


def test_an_event_of_stripe_is_about_its_object():
    body = json.loads(VENDORS["stripe"].body)
    event, record = one("stripe", body)
    assert event == EventDraft("Customer", "afterInsert", "cus_1", "cus_1")
    assert record["email"] == "ada@example.com"
    assert (parse("stripe", body).account, parse("stripe", body).vendor_id) == ("acct_1", "evt_1")
    session = {"id": "evt_2", "type": "checkout.session.completed"}
    session["data"] = {"object": {"id": "cs_1", "object": "checkout.session"}}
    assert one("stripe", session)[0] == EventDraft("CheckoutSession", "afterUpdate", "cs_1", "cs_1")
    assert one("stripe", {"id": "evt_3", "type": "customer.deleted"})[0].event == "afterDelete"


def test_leads_and_activities_of_linkedin():
    body = json.loads(VENDORS["linkedin"].body)
    event, _ = one("linkedin", body)
    lead = "urn:li:leadGenFormResponse:1"
    assert event == EventDraft("Lead", "afterInsert", lead, lead)
    assert parse("linkedin", body).account == "urn:li:sponsoredAccount:5"
    assert one("linkedin", {**body, "leadAction": "DELETED"})[0].event == "afterDelete"
    several = {
        "notifications": [
            {"notificationId": n, "organizationalEntity": "urn:li:organization:1", "action": "LIKE"} for n in (1, 2)
        ]
    }
    parsed = parse("linkedin", several)
    assert parsed.account == "urn:li:organization:1"
    assert [(each.object, each.record) for each in parsed.events] == [("LinkedInActivity", n) for n in "12"]
    assert parse("linkedin", several).vendor_id == parsed.vendor_id
    assert refusal("linkedin", {"notifications": []}) == (400, "no-events")


def test_a_sender_of_its_own_is_read_as_its_settings_say():
    body = {"kind": "customer/new", "shop": "shop-1", "data": {"customer": {"id": "K1"}}, "id": "other"}
    headers = {"x-shop-id": "evt_9"}
    parsed = parse("hmac", body, headers=headers, account="shop")
    assert (parsed.account, parsed.vendor_id) == ("shop-1", "shop:evt_9")
    assert parsed.events == (EventDraft("Contact", "afterInsert", "K1", "K1"),)
    assert parse("hmac", {**body, "kind": "x.y"}, headers=headers, account="shop").events[0].event == "unknown"
    assert parse("hmac", {"kind": "Shipment.afterUpdate"}, account="shop").events[0].object == "Shipment"
    bare = parse("hmac", {}, account="shop")
    assert (bare.account, bare.vendor_id) == ("shop", None)


# Google's notifications


def pushed(**content):
    data = base64.b64encode(json_of(content)).decode()
    return {"message": {"data": data, "messageId": "m-1"}, "subscription": "projects/p/subscriptions/s"}


@pytest.mark.parametrize(
    ("kind", "object_", "event"),
    [
        ("NEW_REVIEW", "Review", "afterInsert"),
        ("UPDATED_REVIEW", "Review", "afterUpdate"),
        ("GOOGLE_UPDATE", "Location", "afterUpdate"),
        ("SOMETHING_ELSE", "Location", "afterUpdate"),
        ("", "unknown", "unknown"),
    ],
)
def test_google_only_names_what_there_is_to_be_read(kind, object_, event):
    place = "accounts/1/locations/2"
    body = pushed(name=place, notificationType=kind, review=f"{place}/reviews/AbF", location=place)
    found, record = one("google", body)
    assert (found.object, found.event) == (object_, event)
    assert found.record == (place if object_ == "Location" else f"{place}/reviews/AbF")
    assert record["name"] == found.record
    assert (parse("google", body).account, parse("google", body).vendor_id) == (place, "m-1")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "no-events"),
        ({"message": {"data": "!!"}}, "not-json"),
        ({"message": {"data": base64.b64encode(b"{").decode()}}, "not-json"),
        ({"message": {"data": base64.b64encode(b"[]").decode()}}, "not-an-object"),
    ],
)
def test_what_is_no_push_is_refused(body, reason):
    assert refusal("google", body) == (400, reason)


def test_every_shared_example_is_parsed():
    root = os.environ.get("CIRCUIT_SHARED")
    if not root:
        pytest.skip("CIRCUIT_SHARED does not name the folder with the vendors' contracts")
    found = {}
    for name in ("hubspot", "twilio", "vapi", "resend", "slack", "google", "github", "meta", "stripe", "linkedin"):
        for example in sorted(Path(root, "specs", name, "webhooks").glob("*.json")):
            body = example.read_bytes()
            if name == "twilio":
                body = urlencode({k: v for k, v in json.loads(body).items() if not k.startswith("_")}).encode()
            event_name = example.name.partition(".")[0]
            parsed = parse(name, body, headers={"x-github-event": event_name})
            got = records(name, body)
            assert [each.record for each in parsed.events] == [each["id"] for each in got]
            found[f"{name}/{example.stem}"] = [(each.object, each.event) for each in parsed.events]
    assert len(found) > 55
    assert found["twilio/inbound_sms"] == [("Message", "afterInsert"), ("OptOut", "afterUpdate")]
    assert found["twilio/message_status"] == [("Message", "afterUpdate")]
    assert found["hubspot/contact.creation"] == [("Contact", "afterInsert")]
    assert found["google/pubsub_push.gbp_new_review"] == [("Review", "afterInsert")]
    assert found["github/issues.opened"] == [("Issue", "afterInsert")]
    assert found["meta/page_leadgen"] == [("Lead", "afterInsert")]
    assert found["stripe/invoice.paid"] == [("Invoice", "afterUpdate")]
    assert found["linkedin/LEAD_ACTION"] == [("Lead", "afterInsert")]
    assert found["vapi/end-of-call-report"] == [("Call", "afterUpdate")]
    assert found["resend/email.received"] == [("Email", "afterInsert")]
    assert found["slack/event_callback.message"] == [("Message", "afterInsert")]
