import asyncio
import json
from uuid import UUID

import pytest

from circuit_script.connectors.connector import CRM, Delivered, InDoubt, Later, LooksUp, Refused, SlowDown, Unknown
from circuit_script.connectors.query import AnyOf, Condition, Not, Query, every, orders
from circuit_script.connectors.reading import rows_of
from circuit_script.errors import QueryRefused, RequestRefused, VendorUnavailable
from tests.crm.gohighlevel_stage import staged
from tests.crm.stage import effect
from tests.road import eventually

PERSON = {"firstName": "Ada", "lastName": "Lovelace", "email": "ada@example.com", "phone": "+12145550101"}


@pytest.fixture
async def stage():
    async with staged() as made:
        yield made


async def deliver(stage, operation, target, fields=None, **more):
    sent = effect(operation, target, fields, **more)
    (result,) = await stage.connector.deliver(operation, [sent])
    return sent, result


async def made(stage, target, fields):
    _, result = await deliver(stage, "insert", target, fields)
    assert isinstance(result, Delivered), result
    return result.vendor_id


async def refusal(stage, operation, target, fields=None, **more):
    _, result = await deliver(stage, operation, target, fields, **more)
    assert isinstance(result, Refused), result
    return result.reason


async def found(stage, where=None, **more):
    return await rows_of(stage.connector, "acme", Query("Contact", where or every(), **more))


# --- contacts


async def test_a_contact_is_made_changed_read_and_deleted(stage):
    stage.vendor.world.custom_field(stage.vendor.location, "Plan")
    id_ = await made(stage, "Contact", {**PERSON, "score": 91, "plan": "gold", "tags": ["VIP"]})
    (row,) = await stage.connector.get("acme", "Contact", [id_])
    assert row["name"] == "Ada Lovelace"
    assert (row["score"], row["plan"], row["tags"]) == (91, "gold", ["vip"])
    field = next(iter(stage.vendor.world.fields))
    assert row[field] == 91  # under its id, too, as webhooks have it

    _, changed = await deliver(stage, "update", "Contact", {"city": "London", "score": None, "phone": None}, id=id_)
    assert isinstance(changed, Delivered)
    (row,) = await stage.connector.get("acme", "Contact", [id_])
    assert row["city"] == "London"
    assert "score" not in row
    assert "phone" not in row

    assert isinstance((await deliver(stage, "delete", "Contact", id=id_))[1], Delivered)
    assert await stage.connector.get("acme", "Contact", [id_]) == [None]
    assert isinstance((await deliver(stage, "delete", "Contact", id=id_))[1], Delivered)  # it is gone, as is wanted


async def test_a_custom_field_is_written_by_its_id_its_key_or_its_whole_key(stage):
    field = stage.vendor.world.custom_field(stage.vendor.location, "Plan")
    for number, name in enumerate((field["id"], "plan", "contact.plan")):
        id_ = await made(stage, "Contact", {"email": f"p{number}@example.com", name: f"gold {number}"})
        assert stage.vendor.world.contacts[id_]["customFields"] == {field["id"]: f"gold {number}"}


async def test_a_field_that_nobody_knows_is_refused_with_what_to_make(stage):
    reason = await refusal(stage, "insert", "Contact", {**PERSON, "grade": "A"})
    assert "contact.grade" in reason
    assert stage.vendor.world.contacts == {}


async def test_a_custom_field_that_was_made_since_is_found(stage):
    clock = Clock()
    stage.connector._writing._customs._clock = clock
    await refusal(stage, "insert", "Contact", {**PERSON, "grade": "A"})
    stage.vendor.world.custom_field(stage.vendor.location, "Grade")
    clock.now += 6
    assert await made(stage, "Contact", {**PERSON, "grade": "A"})


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


async def test_a_list_in_a_field_of_text_is_json_there_and_text_for_its_readers(stage):
    world, location = stage.vendor.world, stage.vendor.location
    fields = {name: world.custom_field(location, name, kind)["id"] for name, kind in (
        ("Reasons", "LARGE_TEXT"), ("Facts", "TEXT"), ("Plan", "SINGLE_OPTIONS"), ("Colours", "MULTIPLE_OPTIONS"),
    )}  # fmt: skip
    said = {"reasons": ["wants “it”", "für 2"], "facts": {"a": [1, None]}, "colours": ["red", "blue"]}
    id_ = await made(stage, "Contact", {**PERSON, **said})
    stored = world.contacts[id_]["customFields"]
    assert stored[fields["Reasons"]] == '["wants “it”","für 2"]'
    assert stored[fields["Facts"]] == '{"a":[1,null]}'
    assert stored[fields["Colours"]] == ["red", "blue"]
    (row,) = await stage.connector.get("acme", "Contact", [id_])
    assert json.loads(row["reasons"]) == said["reasons"]
    assert json.loads(row["facts"]) == said["facts"]
    assert row["colours"] == said["colours"]

    lost, _ = await deliver(stage, "update", "Contact", said, id=id_)
    assert isinstance(await stage.connector.look_up(lost), Delivered)  # it stands there already
    _, result = await deliver(stage, "update", "Contact", {"reasons": []}, id=id_)
    assert isinstance(result, Delivered)
    assert fields["Reasons"] not in world.contacts[id_]["customFields"]
    assert "plan is text there" in await refusal(stage, "update", "Contact", {"plan": ["a", "b"]}, id=id_)
    assert "city is text there" in await refusal(stage, "update", "Contact", {"city": ["a"]}, id=id_)


async def test_events_get_the_keys_of_ids_from_what_is_remembered(stage):
    world, location = stage.vendor.world, stage.vendor.location
    world.custom_field(location, "City")  # called as one of the vendor's own
    score = next(id_ for id_, each in world.fields.items() if each["name"] == "Score")
    assert score != "score"
    assert await stage.connector.twins_at_hand("acme", "Task") == {}
    assert stage.calls() == 0
    clock = stage.connector._writing._customs._clock = Clock()
    assert await stage.connector.twins_at_hand("acme", "Contact") == {score: "score"}
    assert await stage.connector.twins("acme", "Contact") == {score: "score"}
    plan = world.custom_field(location, "Plan")["id"]
    clock.now += 299
    assert await stage.connector.twins_at_hand("acme", "Contact") == {score: "score"}
    assert stage.calls() == 1
    clock.now += 2
    assert await stage.connector.twins_at_hand("acme", "Contact") == {score: "score"}  # nobody waits for the new ones

    async def known():
        return await stage.connector.twins_at_hand("acme", "Contact") == {score: "score", plan: "plan"}

    await eventually(known, "the new field is not known")
    assert stage.calls() == 2


async def test_events_go_on_without_keys_that_the_vendor_does_not_say(stage):
    clock = stage.connector._writing._customs._clock = Clock()
    stage.fail_next("500")
    assert await stage.connector.twins_at_hand("acme", "Contact") == {}
    asked = stage.calls()
    clock.now += 59
    assert await stage.connector.twins_at_hand("acme", "Contact") == {}
    assert stage.calls() == asked
    clock.now += 2
    assert list((await stage.connector.twins_at_hand("acme", "Contact")).values()) == ["score"]


async def test_what_the_vendor_keeps_itself_may_stand_in_a_row(stage):
    (id_,) = await stage.seed([PERSON])
    (row,) = await stage.connector.get("acme", "Contact", [id_])
    fields = {name: value for name, value in row.items() if name != "id"} | {"city": "Rome"}
    assert isinstance((await deliver(stage, "update", "Contact", fields, id=id_))[1], Delivered)
    assert stage.vendor.world.contacts[id_]["city"] == "Rome"


async def test_a_person_who_is_there_is_not_made_twice_and_the_answer_says_who(stage):
    (id_,) = await stage.seed([PERSON])
    reason = await refusal(stage, "insert", "Contact", PERSON)
    assert id_ in reason
    assert "upsert" in reason


async def test_an_upsert_finds_by_e_mail_or_makes(stage):
    (id_,) = await stage.seed([PERSON])
    _, result = await deliver(stage, "upsert", "Contact", {"email": "ada@example.com", "city": "Rome"})
    assert result == Delivered(id_)
    _, fresh = await deliver(stage, "upsert", "Contact", {"email": "bo@example.com"})
    assert fresh.vendor_id not in (None, id_)
    _, known = await deliver(stage, "upsert", "Contact", {"city": "Oslo"}, id=id_)
    assert known == Delivered(id_)
    assert stage.vendor.world.contacts[id_]["city"] == "Oslo"
    _, nameless = await deliver(stage, "upsert", "Contact", {"city": "Bern"})
    assert nameless.vendor_id not in (None, id_, fresh.vendor_id)


async def test_tags_are_added_and_removed_without_touching_the_others(stage):
    (id_,) = await stage.seed([{**PERSON, "tags": ["old", "gone"]}])
    await deliver(stage, "update", "Contact", {"addTags": ["New"], "removeTags": "gone"}, id=id_)
    assert stage.vendor.world.contacts[id_]["tags"] == ["old", "new"]
    await deliver(stage, "update", "Contact", {"tags": ["only"]}, id=id_)
    assert stage.vendor.world.contacts[id_]["tags"] == ["only"]


async def test_numbers_and_flags_in_fields_of_text_are_written_as_text(stage):
    id_ = await made(stage, "Contact", {"email": "n@example.com", "postalCode": 75001, "source": True})
    assert stage.vendor.world.contacts[id_]["postalCode"] == "75001"
    assert stage.vendor.world.contacts[id_]["source"] == "true"
    assert "text there" in await refusal(stage, "update", "Contact", {"city": ["a"]}, id=id_)
    assert "number there" in await refusal(stage, "update", "Contact", {"score": "many"}, id=id_)


# --- queries


async def test_the_vendor_filters_what_it_can(stage):
    await stage.seed(
        [
            {"firstName": "Ada", "email": "ada@example.com", "city": "Rome", "score": 10, "tags": ["vip"]},
            {"firstName": "Bo", "email": "bo@example.com", "city": "Oslo", "score": 50, "dnd": True},
            {"firstName": "Cy", "email": "cy@example.com", "score": 90},
        ]
    )

    async def names(where):
        return sorted(row["firstName"] for row in await found(stage, where))

    assert await names(Condition("email", "eq", "bo@example.com")) == ["Bo"]
    assert await names(Condition("email", "in", ("bo@example.com", "cy@example.com"))) == ["Bo", "Cy"]
    assert await names(Condition("firstName", "starts_with", "A")) == ["Ada"]
    assert await names(Condition("score", "gt", 10)) == ["Bo", "Cy"]
    assert await names(Condition("score", "le", 50)) == ["Ada", "Bo"]
    assert await names(Condition("city", "is_null", True)) == ["Cy"]
    assert await names(Condition("city", "is_null", False)) == ["Ada", "Bo"]
    assert await names(Condition("tags", "contains", "VIP")) == ["Ada"]
    assert await names(Condition("dnd", "eq", True)) == ["Bo"]
    assert await names(Condition("dnd", "eq", False)) == ["Ada", "Cy"]
    assert await names(Not(Condition("city", "eq", "Rome"))) == ["Bo", "Cy"]
    either = AnyOf(
        (Condition("city", "eq", "Rome"), every(Condition("score", "ge", 90), Condition("dnd", "eq", False)))
    )
    assert await names(either) == ["Ada", "Cy"]


async def test_every_filter_that_is_asked_is_one_that_the_vendor_documents(stage):
    """The stand-in refuses any field or operator that the vendor's page does not list."""
    await stage.seed([PERSON])
    fields = ("id", "firstName", "lastName", "email", "phone", "city", "state", "country", "postalCode", "source",
              "timezone", "companyName", "address1", "assignedTo", "type", "website", "dnd", "tags", "dateAdded",
              "dateUpdated", "dateOfBirth", "score", "name", "nobody")  # fmt: skip
    for name in fields:
        for op, value in (("eq", "a"), ("ne", "a"), ("gt", "2020-01-01"), ("le", "2020-01-01T10:00:00+02:00"),
                          ("contains", "a"), ("contains", "a+b"), ("ends_with", "a"), ("is_null", True), ("eq", None),
                          ("is_null", False), ("in", ("a", "b")), ("eq", 5), ("eq", True), ("eq", "x" * 80),
                          ("gt", 5), ("not_in", ("a",)), ("eq", "2020-01-01"), ("eq", "")):  # fmt: skip
            await found(stage, Condition(name, op, value))


async def test_dates_are_asked_as_ranges(stage):
    await stage.seed([PERSON])
    (row,) = await found(stage)
    at = row["dateAdded"]
    assert await found(stage, Condition("dateAdded", "ge", at))
    assert not await found(stage, Condition("dateAdded", "gt", at))
    assert await found(stage, Condition("dateAdded", "eq", at.replace("Z", "+00:00")))


async def test_pages_go_on_to_the_end_and_orders_hold(stage):
    await stage.seed([{"email": f"p{n}@example.com", "score": n % 7} for n in range(1203)])
    before = stage.calls()
    assert len(await found(stage, limit=5000)) == 1203
    assert stage.calls() - before <= 4  # custom fields, three pages of 500 at most
    newest = await found(stage, order_by=orders("-dateAdded"), limit=3)
    assert [row["email"] for row in newest] == [f"p{n}@example.com" for n in (1202, 1201, 1200)]
    lowest = await found(stage, order_by=orders("score", "email"), limit=2)
    assert [row["score"] for row in lowest] == [0, 0]


async def test_a_query_is_explained_in_the_vendors_words(stage):
    where = every(Condition("email", "eq", "a@b.co"), Condition("city", "ne", "Rome"))
    plan = stage.connector.explain(Query("Contact", where, orders("lastName")))
    (asked,) = plan.requests
    assert asked.startswith("POST /contacts/search")
    assert '"email"' in asked
    assert "Rome" not in asked
    assert "city != 'Rome'" in plan.here[0]
    assert not plan.ordered
    assert stage.connector.explain(Query("Contact", order_by=orders("-dateUpdated"))).ordered


async def test_an_object_that_the_vendor_does_not_have_is_refused(stage):
    with pytest.raises(QueryRefused, match="Invoice"):
        await found_of(stage, "Invoice")
    assert "Invoice" in await refusal(stage, "insert", "Invoice", {"a": 1})


async def found_of(stage, object_, where=None):
    return await rows_of(stage.connector, "acme", Query(object_, where or every()))


# --- the other objects


async def test_opportunities(stage):
    (person,) = await stage.seed([PERSON])
    (pipeline,) = await found_of(stage, "Pipeline")
    fields = {"name": "Gym", "pipelineId": pipeline["id"], "contactId": person, "status": "open", "monetaryValue": 40}
    id_ = await made(stage, "Opportunity", fields)
    (row,) = await stage.connector.get("acme", "Opportunity", [id_])
    assert row["monetaryValue"] == 40
    assert row["dateAdded"]
    await deliver(stage, "update", "Opportunity", {"status": "won", "contactId": person}, id=id_)
    (won,) = await found_of(
        stage, "Opportunity", every(Condition("status", "eq", "won"), Condition("name", "eq", "Gym"))
    )
    assert won["id"] == id_
    for number in range(120):
        await stage.seed([{"email": f"o{number}@example.com"}])
        stage.vendor.world.opportunity(stage.vendor.location, fields | {"name": f"n{number}"})
    assert len(await found_of(stage, "Opportunity", Condition("contactId", "eq", person))) == 121
    assert isinstance((await deliver(stage, "delete", "Opportunity", id=id_))[1], Delivered)


async def test_messages_are_sent_and_found(stage):
    (person,) = await stage.seed([PERSON])
    id_ = await made(stage, "Message", {"contactId": person, "messageType": "SMS", "body": "Hello"})
    await made(stage, "Message", {"contactId": person, "type": "Email", "subject": "Hi", "body": "<p>Hi</p>"})
    (row,) = await stage.connector.get("acme", "Message", [id_])
    assert (row["body"], row["messageType"], row["direction"]) == ("Hello", "SMS", "outbound")
    rows = await found_of(stage, "Message", Condition("contactId", "eq", person))
    assert sorted(each["messageType"] for each in rows) == ["EMAIL", "SMS"]
    (talk,) = await found_of(stage, "Conversation", Condition("contactId", "eq", person))
    assert await stage.connector.get("acme", "Conversation", [talk["id"]]) != [None]
    stage.vendor.world.contacts[person]["dnd"] = True
    assert "DND" in await refusal(stage, "insert", "Message", {"contactId": person, "body": "No"})
    assert "contactId" in await refusal(stage, "insert", "Message", {"body": "No"})


async def test_appointments_are_found_by_time(stage):
    (person,) = await stage.seed([PERSON])
    (calendar,) = await found_of(stage, "Calendar")
    booked = {"calendarId": calendar["id"], "contactId": person, "title": "Visit",
              "startTime": "2026-11-25T10:00:00+01:00", "endTime": "2026-11-25T10:30:00+01:00"}  # fmt: skip
    id_ = await made(stage, "Appointment", booked)
    later = {**booked, "startTime": "2026-12-25T10:00:00Z", "endTime": "2026-12-25T10:30:00Z"}
    await made(stage, "Appointment", later)
    until = every(Condition("startTime", "ge", "2026-11-01"), Condition("startTime", "lt", "2026-12-01"))
    (row,) = await found_of(stage, "Appointment", until)
    assert row["id"] == id_
    assert len(await found_of(stage, "Appointment", Condition("contactId", "eq", person))) == 2
    await deliver(stage, "update", "Appointment", {"appointmentStatus": "showed"}, id=id_)
    assert (await stage.connector.get("acme", "Appointment", [id_]))[0]["appointmentStatus"] == "showed"
    assert isinstance((await deliver(stage, "delete", "Appointment", id=id_))[1], Delivered)
    assert len(await found_of(stage, "Appointment", until)) == 0


async def test_notes_and_tasks_belong_to_their_contact(stage):
    (person,) = await stage.seed([PERSON])
    note = await made(stage, "Note", {"contactId": person, "body": "called"})
    await deliver(stage, "update", "Note", {"contactId": person, "body": "called twice"}, id=note)
    (row,) = await found_of(stage, "Note", Condition("contactId", "eq", person))
    assert (row["id"], row["body"], row["contactId"]) == (note, "called twice", person)
    assert (await stage.connector.get("acme", "Note", [f"{person}/{note}"]))[0]["body"] == "called twice"
    task = await made(
        stage, "Task", {"contactId": person, "title": "Call", "dueDate": "2026-12-01T00:00:00Z", "completed": False}
    )
    await deliver(stage, "update", "Task", {"completed": True}, id=f"{person}/{task}")
    (done,) = await found_of(stage, "Task", Condition("completed", "eq", True))
    assert done["id"] == task
    for kind, id_ in (("Note", note), ("Task", task)):
        assert isinstance((await deliver(stage, "delete", kind, id=f"{person}/{id_}"))[1], Delivered)
    assert (stage.vendor.world.notes, stage.vendor.world.tasks) == ({}, {})
    with pytest.raises(QueryRefused, match="contactId"):
        await found_of(stage, "Note")
    with pytest.raises(RequestRefused, match="contact"):
        await stage.connector.get("acme", "Note", ["alone"])
    assert "contact" in await refusal(stage, "delete", "Note", id="alone")


async def test_tags_and_custom_fields_of_the_location(stage):
    await made(stage, "Tag", {"name": "VIP"})
    assert [row["name"] for row in await found_of(stage, "Tag")] == ["vip"]
    assert [row["fieldKey"] for row in await found_of(stage, "CustomField")] == ["contact.score"]
    assert "only read" in await refusal(stage, "insert", "Calendar", {"name": "x"})


# --- errors, doubt, limits


async def test_errors_mean_what_they_mean(stage):
    (id_,) = await stage.seed([PERSON])
    await stage.connector.page("acme", Query("Contact"))
    for how, kind in (("429", SlowDown), ("500", Unknown), ("drop_before", Unknown)):
        stage.fail_next(how)
        assert isinstance((await deliver(stage, "update", "Contact", {"city": "X"}, id=id_))[1], kind)
        await asyncio.sleep(0)
    assert "not found" in await refusal(stage, "update", "Contact", {"city": "X"}, id="nobodynobodynobody00")
    stage.fail_next("drop_before")
    with pytest.raises(VendorUnavailable):
        await stage.connector.page("acme", Query("Contact"))
    assert isinstance((await deliver(stage, "update", "Contact", {"email": "none"}, id=id_))[1], Refused)


async def test_a_token_without_the_scope_is_no_reason_to_ask_for_another(stage):
    vendor = stage.vendor
    vendor.tokens.grants[vendor.token] = type(vendor.tokens.grants[vendor.token])(
        vendor.location, scopes="contacts.write"
    )
    before = stage.calls()
    with pytest.raises(VendorUnavailable, match="scope"):
        await stage.connector.page("acme", Query("Opportunity"))
    assert stage.calls() - before <= 2


@pytest.mark.parametrize("by", ["email", "phone", "reference"])
async def test_a_contact_whose_answer_was_lost_is_found_again(stage, by):
    if by == "reference":
        stage.vendor.world.custom_field(stage.vendor.location, "Circuit reference")
    fields = {"firstName": "Ada"} | ({} if by == "reference" else {by: PERSON[by]})
    await stage.connector.page("acme", Query("Contact"))
    stage.vendor.door.faults.clear()
    lost = effect("insert", "Contact", fields)
    if by == "reference":  # the definitions are asked for once more, as they are older than the field
        stage.connector._writing._customs._known.clear()
        await stage.connector.page("acme", Query("Contact"))
    stage.fail_next("drop_after")
    (result,) = await stage.connector.deliver("insert", [lost])
    assert isinstance(result, Unknown)
    (id_,) = stage.vendor.world.contacts
    assert await stage.connector.look_up(lost) == Delivered(id_)
    never = effect("insert", "Contact", {"firstName": "Bo", "email": "bo@example.com"})
    assert isinstance(await stage.connector.look_up(never), Later)


async def test_of_a_contact_without_any_of_them_nobody_can_know(stage):
    assert await stage.connector.look_up(effect("insert", "Contact", {"firstName": "Ada"})) is None


async def test_a_message_that_is_not_found_is_never_sent_again_by_itself(stage):
    (person,) = await stage.seed([PERSON])
    lost = effect("insert", "Message", {"contactId": person, "body": "Hello"})
    assert await stage.connector.look_up(lost) is None
    stage.fail_next("drop_after")
    assert isinstance((await stage.connector.deliver("insert", [lost]))[0], Unknown)
    (id_,) = stage.vendor.world.messages
    assert await stage.connector.look_up(lost) == Delivered(id_)


async def test_what_belongs_to_a_contact_is_found_again(stage):
    (person,) = await stage.seed([PERSON])
    (pipeline,), (calendar,) = await found_of(stage, "Pipeline"), await found_of(stage, "Calendar")
    rows = {
        "Note": {"contactId": person, "body": "x"},
        "Task": {"contactId": person, "title": "x", "dueDate": "2026-12-01T00:00:00Z", "completed": False},
        "Opportunity": {"contactId": person, "name": "x", "pipelineId": pipeline["id"], "status": "open"},
        "Appointment": {"contactId": person, "calendarId": calendar["id"], "startTime": "2026-12-01T00:00:00Z"},
        "Tag": {"name": "X"},
    }
    for target, fields in rows.items():
        lost = effect("insert", target, fields)
        assert isinstance(await stage.connector.look_up(lost), Later)
        stage.fail_next("drop_after")
        assert isinstance((await stage.connector.deliver("insert", [lost]))[0], Unknown)
        assert isinstance(await stage.connector.look_up(lost), Delivered), target


def test_what_it_declares():
    from circuit_script.connectors.gohighlevel import GoHighLevel
    from circuit_script.connectors.pace import Pace

    connector = GoHighLevel(None)
    assert isinstance(connector, LooksUp)
    crm: CRM = connector
    assert {name: each.in_doubt for name, each in crm.operations.items()} == {
        "insert": InDoubt.LOOK_UP, "upsert": InDoubt.LOOK_UP, "update": InDoubt.REPEAT, "delete": InDoubt.REPEAT,
    }  # fmt: skip
    for each in connector.operations.values():
        assert each.rate.calls + each.rate.burst <= Pace(100, 10).calls
        assert each.rate.of == "connector"


async def test_three_hundred_writes_and_reads_beside_them_provoke_no_429():
    async with staged(window=0.5) as stage:
        ids = await stage.seed([{"email": f"p{n}@example.com"} for n in range(300)])
        waited = 0

        async def write(id_):
            nonlocal waited
            while True:
                _, result = await deliver(stage, "update", "Contact", {"city": "Rome"}, id=id_)
                if isinstance(result, Delivered):
                    return
                assert isinstance(result, SlowDown), result
                waited += 1
                await asyncio.sleep(result.after)

        async def read():
            for _ in range(20):
                await stage.connector.get("acme", "Contact", ids[:5])

        async with asyncio.timeout(60):
            await asyncio.gather(*map(write, ids), read())
        assert stage.vendor.limits.refused == 0
        assert all(each["city"] == "Rome" for each in stage.vendor.world.contacts.values())
        assert stage.calls() >= 400


async def test_what_others_use_of_the_limit_is_left_to_them():
    async with staged(window=0.5) as stage:
        ids = await stage.seed([{"email": f"p{n}@example.com"} for n in range(60)])
        for _ in range(60):
            stage.vendor.limits.take(stage.vendor.location)
        async with asyncio.timeout(30):
            await stage.connector.get("acme", "Contact", ids)
        assert stage.vendor.limits.refused == 0


async def test_references_are_uuids_and_the_vendors_ids_are_not():
    from circuit_script.connectors.gohighlevel.writing import is_reference

    assert is_reference(str(UUID(int=7)))
    assert not is_reference("ve9EPM428h8vShlRW1KT")
    assert not is_reference("6305ab1d0ca6c4d5f6a9e2b1")


@pytest.mark.parametrize("target", ["Note", "Task"])
async def test_what_another_effect_made_is_not_taken_for_one_that_never_arrived(stage, target):
    (person,) = await stage.seed([PERSON])
    fields = {"contactId": person, "body": "Call back"} | (
        {"title": "x", "dueDate": "2026-12-01T00:00:00Z", "completed": False} if target == "Task" else {}
    )
    first = await made(stage, target, fields)
    never = effect("insert", target, fields)
    assert isinstance(await stage.connector.look_up(never), Later)
    second = await made(stage, target, fields)
    assert second != first


async def test_an_id_that_means_another_path_reaches_nothing_else(stage):
    (person,) = await stage.seed([PERSON])
    for target, id_, fields in (
        ("Note", f"{person}/..", {"body": "x"}),
        ("Task", f"{person}/.", {"title": "x"}),
        ("Contact", "..", {"email": "x@example.com"}),
        ("Note", "../x", {"body": "x"}),
    ):
        assert "no id" in await refusal(stage, "delete", target, id=id_)
        assert "no id" in await refusal(stage, "update", target, fields, id=id_)
        assert await stage.connector.get("acme", target, [id_]) == [None]
    assert "no id" in await refusal(stage, "insert", "Note", {"contactId": "..", "body": "x"})
    lost = effect("insert", "Note", {"contactId": "..", "body": "x"})
    assert isinstance(await stage.connector.look_up(lost), Later)
    with pytest.raises(QueryRefused):
        await stage.connector.page("acme", Query("Note", Condition("contactId", "eq", "..")))
    assert stage.vendor.world.contacts[person]["email"] == PERSON["email"]


async def test_a_custom_field_that_is_called_as_one_of_the_vendors_hides_nobody(stage):
    stage.vendor.world.custom_field(stage.vendor.location, "Name")
    await stage.seed([PERSON])
    (row,) = await found(stage, Condition("name", "eq", "Ada Lovelace"))
    assert row["email"] == PERSON["email"]
