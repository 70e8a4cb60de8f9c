"""The trigger: what it asks of CircuitDB and which alerts it sends, with both replaced by a small record of calls.

What only the real road can show (effects per record, echoes, a batch of 200 in one execution) is for the
acceptance tests.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from circuit_script import Record
from circuit_script.agents import VirtualLPR, load_profile
from circuit_script.agents.virtual_lpr import trigger as module
from circuit_script.agents.virtual_lpr.replies import classify_appointment, classify_message, classify_reply
from circuit_script.execution.authoring.handlers import registry

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LOCAL = load_profile("local_service")
GOOD = {
    "industry_match": "target",
    "distance_miles": 1.2,
    "budget_ratio": 1.6,
    "authority": "owner",
    "need": "exact",
    "phone_valid": True,
    "email_deliverable": True,
    "consent": True,
    "due_in_days": 10,
}


class Desk:
    """A CRM of one dict, and what was asked of it."""

    def __init__(self):
        self.contacts, self.calls, self.alerts, self.scores = {}, [], [], []

    async def get(self, object_, ids):
        self.calls.append(("get", object_, list(ids)))
        return [self.contacts.get(each) for each in ids]

    async def update(self, object_, rows):
        self.calls.append(("update", object_, [row["id"] for row in rows]))
        for row in rows:
            self.contacts[row["id"]] = {**self.contacts.get(row["id"], {}), **row}

    async def insert(self, object_, rows):
        self.calls.append(("insert", object_, len(rows)))
        self.scores += rows

    async def send(self, to, payload, *, record):
        self.alerts.append((to, payload, record["id"]))

    @property
    def asked(self):
        return [(verb, object_) for verb, object_, _ in self.calls]


@pytest.fixture
def desk(monkeypatch):
    desk = Desk()
    monkeypatch.setattr(module, "CircuitDB", desk)
    monkeypatch.setattr(module, "send_webhook", desk.send)
    alert = dataclasses.replace(LOCAL.alert, address="sales")
    monkeypatch.setattr(VirtualLPR, "profile", dataclasses.replace(LOCAL, alert=alert))
    return desk


async def happens(object_, event, records, old=None, now=NOW):
    rows = [Record(row) for row in records]
    await module.LeadScoring().score_leads(
        SimpleNamespace(
            object=object_,
            event_name=event,
            new_records=rows,
            old_records=old or [None] * len(rows),
            started_at=now.timestamp(),
        )
    )


def message(body="", contact="c1", identifier="m1", **fields):
    given = {"direction": "inbound", "messageType": "SMS", "dateAdded": NOW.isoformat(), "body": body}
    return {"id": identifier, "contactId": contact, **given, **fields}


def test_one_shared_handler_serves_contacts_messages_and_appointments():
    spec = next(spec for spec in registry.specs() if spec.name == "LeadScoring.score_leads")
    assert set(spec.routes) == {
        *[("Contact", "afterInsert"), ("Contact", "afterUpdate")],
        *[("Message", "afterInsert"), ("Appointment", "afterInsert")],
    }
    assert spec.share_child
    assert not spec.echoes


async def test_a_batch_of_new_contacts_costs_one_update_and_one_insert(desk):
    await happens("Contact", "afterInsert", [{"id": f"c{number}", **GOOD} for number in range(200)])
    assert desk.asked == [("update", "Contact"), ("insert", "LeadScore")]
    kept = desk.scores[0]
    assert (kept["contactId"], kept["total"], kept["band"], kept["at"]) == ("c0", 47, "warm", NOW.isoformat())
    assert kept["parts"]["company_match"] == 8
    assert kept["next_change_at"] is None
    assert desk.contacts["c0"]["tags"] == ["lpr:warm"]


async def test_an_update_is_scored_only_if_a_field_that_the_profile_reads_changed(desk):
    scored = {"id": "c1", **GOOD, "lpr_score": 47, "lpr_signals": []}
    await happens("Contact", "afterUpdate", [{"id": "c1", **GOOD, "firstName": "Ann"}], [scored])
    assert desk.calls == []
    await happens("Contact", "afterUpdate", [{"id": "c1", **GOOD, "need": "related"}], [scored])
    assert desk.asked == [("update", "Contact"), ("insert", "LeadScore")]
    desk.calls.clear()
    await happens("Contact", "afterUpdate", [{"id": "c1", **GOOD}], [{"id": "c1", **GOOD}])
    assert desk.asked == [("update", "Contact"), ("insert", "LeadScore")]


async def test_a_reply_becomes_a_signal_of_its_contact_and_the_score_follows(desk):
    desk.contacts["c1"] = {"id": "c1", **GOOD}
    await happens("Message", "afterInsert", [message("Yes, sounds good!"), message("How much is it?", identifier="m2")])
    assert desk.calls == [("get", "Contact", ["c1"]), ("update", "Contact", ["c1"]), ("insert", "LeadScore", 1)]
    signals = desk.contacts["c1"]["lpr_signals"]
    assert [(signal["id"], signal["type"]) for signal in signals] == [
        ("m1", "positive_reply"),
        ("m2", "price_question"),
    ]
    assert desk.contacts["c1"]["lpr_intent"] == 7
    assert desk.scores[0]["signals"][0][1] == "positive_reply"


async def test_the_same_message_twice_counts_once(desk):
    desk.contacts["c1"] = {"id": "c1", **GOOD}
    for _ in range(2):
        await happens("Message", "afterInsert", [message("Yes please, I am interested")])
    assert len(desk.contacts["c1"]["lpr_signals"]) == 1


async def test_a_message_of_nobody_we_know_and_one_that_says_nothing_make_nothing(desk):
    await happens("Message", "afterInsert", [message("Yes", contact="stranger"), message("", contact="c2")])
    assert desk.calls == [("get", "Contact", ["stranger"])]
    desk.calls.clear()
    await happens("Message", "afterInsert", [message("Yes", direction="outbound"), {"id": "m", "contactId": 7}])
    assert desk.calls == []


async def test_only_the_newest_two_hundred_signals_are_kept(desk):
    old = [{"id": f"o{n}", "type": "pricing_view", "at": (NOW - timedelta(hours=n)).isoformat()} for n in range(1, 205)]
    desk.contacts["c1"] = {"id": "c1", "lpr_signals": old}
    await happens("Message", "afterInsert", [message("Yes, sounds great")])
    kept = desk.contacts["c1"]["lpr_signals"]
    assert len(kept) == 200
    assert kept[-1]["id"] == "m1"
    assert kept[0]["id"] == "o199"


async def test_a_vendors_clock_that_runs_ahead_does_not_hide_the_signal(desk):
    desk.contacts["c1"] = {"id": "c1", **GOOD}
    await happens("Message", "afterInsert", [message("Yes!", dateAdded=(NOW + timedelta(minutes=5)).isoformat())])
    assert desk.contacts["c1"]["lpr_signals"][0]["at"] == NOW.isoformat()
    assert desk.contacts["c1"]["lpr_intent"] == 5


async def test_who_becomes_hot_is_told_to_sales_once(desk):
    desk.contacts["c1"] = {"id": "c1", **GOOD, "firstName": "Ann", "phone": "+12145550100"}
    booked = {"id": "a1", "contactId": "c1", "appointmentStatus": "confirmed", "dateAdded": NOW.isoformat()}
    await happens("Appointment", "afterInsert", [booked])
    ((to, told, record),) = desk.alerts
    assert (to, record, told["contact"], told["score"], told["band"]) == ("sales", "a1", "c1", 77, "hot")
    assert told["phone"] == "+12145550100"
    assert told["opening"].startswith("Hi Ann,")
    assert told["reasons"][0] == "+20/20 booked an appointment just now"
    assert len(told["reasons"]) == 3
    await happens("Message", "afterInsert", [message("Yes, looking forward")], now=NOW + timedelta(hours=1))
    assert len(desk.alerts) == 1


async def test_a_hot_alert_repeats_after_seven_days_or_after_leaving_hot(desk):
    hot = {"id": "c1", **GOOD, "lpr_band": "hot", "lpr_route": "hot", "lpr_score": 77}
    signals = [{"type": "application_submitted", "at": NOW.isoformat()}]

    async def alerts(days_ago, **fields):
        desk.alerts.clear()
        last = (NOW - timedelta(days=days_ago)).isoformat()
        contact = hot | {"lpr_signals": signals, "lpr_alerted_at": last} | fields
        await happens("Contact", "afterUpdate", [contact], [{**contact, "need": "related"}])
        return len(desk.alerts)

    assert await alerts(6.9) == 0
    assert await alerts(7) == 1
    assert await alerts(1, lpr_band="warm", lpr_route="warm") == 1


async def test_without_an_address_no_alert_leaves(desk, monkeypatch):
    monkeypatch.setattr(VirtualLPR, "profile", LOCAL)
    await happens(
        "Contact",
        "afterInsert",
        [{"id": "c1", **GOOD, "lpr_signals": [{"type": "contact_form", "at": NOW.isoformat()}]}],
    )
    assert desk.contacts["c1"]["lpr_route"] == "hot"
    assert desk.alerts == []


async def test_hostile_text_neither_raises_nor_reaches_the_alert(desk):
    evil = "<script>alert(1)</script>\n{profile}"
    contact = {"id": "c1", **GOOD, "firstName": evil, "phone": evil, "companyName": evil, "tags": {"x": 1}}
    contact["lpr_signals"] = [{"type": "contact_form", "at": NOW.isoformat(), "id": evil}, evil, None, 7]
    await happens("Contact", "afterInsert", [contact])
    told = desk.alerts[0][1]
    assert told["phone"] is None
    assert not set("<>{}()\n") & set(told["opening"].replace("?", ""))
    assert "script" not in " ".join(told["reasons"])


@pytest.mark.parametrize(
    ("body", "signal"),
    [
        ("STOP", "unsubscribed"),
        ("stop.", "unsubscribed"),
        ("Can I stop by on Friday?", "neutral_reply"),
        ("Stop all", "do_not_contact"),
        ("START", "opted_in"),
        ("Not interested, thank you.", "not_interested_reply"),
        ("No.", "not_interested_reply"),
        ("I have no idea yet", "neutral_reply"),
        ("Maybe next year, money is tight just now.", "stated_not_now"),
        ("How much is the family plan?", "price_question"),
        ("Please call me back", "asked_for_person"),
        ("Yes, I would love to come by this week.", "positive_reply"),
        ("Sí, claro", "positive_reply"),
        ("¿Cuánto cuesta?", "price_question"),
        ("Thanks! I will let you know.", "neutral_reply"),
        ('<div style="x">Yes, sounds good</div>', "positive_reply"),
        ("Thanks\n> are you interested?", "neutral_reply"),
        ("Automatic reply: I am on holiday", ""),
        ("", ""),
        (None, ""),
        (["yes"], ""),
    ],
)
def test_replies_are_understood_by_rule_words(body, signal):
    assert classify_reply(body, LOCAL) == signal


@pytest.mark.parametrize(
    ("fields", "signal"),
    [
        ({"callDuration": 60, "callStatus": "completed"}, "inbound_call"),
        ({"callDuration": "120", "status": "completed"}, "inbound_call"),
        ({"callDuration": 20, "callStatus": "completed"}, ""),
        ({"status": "voicemail"}, "missed_inbound_call"),
        ({"callDuration": 0, "callStatus": "completed"}, "missed_inbound_call"),
    ],
)
def test_a_call_counts_by_its_length_and_by_whether_anybody_took_it(fields, signal):
    assert classify_message(message(messageType="CALL", **fields), LOCAL) == signal


def test_a_cancelled_appointment_is_no_signal_and_a_no_show_counts_against():
    assert classify_appointment({"appointmentStatus": "confirmed"}) == "appointment_booked"
    assert classify_appointment({"appointmentStatus": "cancelled"}) == ""
    assert classify_appointment({"appointmentStatus": "no-show"}) == "no_show"
    assert classify_appointment({"appointmentStatus": 7}) == "appointment_booked"
