"""Records that do not fit their schema fail before the handler sees them, each for itself, in real children."""

from __future__ import annotations

import json

import pytest

from circuit_script.execution.outcome import Failed, Succeeded
from circuit_script.execution.retries import UNFIT
from tests.integration.execution.conftest import PoolOf, Recorder

APP = """
import json
from circuit_script import ContactSchema

class Contact(ContactSchema, object="Contact"):
    budget: int | None

    @classmethod
    def broken(cls, value):
        raise KeyError(value)

@trigger("Contact", ["afterInsert"], concurrency=4)
async def look(context):
    seen = []
    for record, old, event in zip(context.new_records, context.old_records, context.events):
        async with context.record(record) as same:
            assert same is record
            seen.append([record.id, record.place, old and old.id, event["raw"], context.changed(record, "budget")])
            if record.get("fail"):
                raise ValueError("its own")
    log.info(json.dumps(seen))

@trigger("Contact", ["afterInsert"])
async def all_of_it(context):
    raise Cancel("not wanted")

@trigger("Contact", ["afterInsert"])
async def write(context):
    rows = json.loads(context.new_records[0]["rows"])
    op = context.new_records[0]["op"]
    try:
        await getattr(CircuitDB, op)("Contact", rows)
    except SchemaRefused as error:
        log.info(str(error))
    await CircuitDB.insert("Other", {"budget": "free"})

@trigger("Contact", ["afterInsert"])
async def unseen(context):
    log.info("called")
"""
GOOD, BAD = {"budget": 5}, {"budget": "5"}


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_one_that_does_not_fit_fails_alone_and_the_others_keep_their_places(
    pool_of: PoolOf, concurrency: int
) -> None:
    bench, broker = await pool_of(APP), Recorder()
    records = [{"id": "a", **GOOD}, {"id": "b", **BAD}, {"id": "c", **GOOD, "fail": True}, {"id": "d", **GOOD}]
    old = [{"id": "a", **GOOD}, None, None, {"id": "d", "budget": 1}]
    outcome = await bench.run("look", records=records, old=old, broker=broker, concurrency=concurrency)
    assert isinstance(outcome, Succeeded)
    assert outcome.errors == {
        1: "SchemaRefused: Contact: budget must be a whole number, and is a text",
        2: "ValueError: its own",
    }
    assert outcome.hints[1].kinds == (UNFIT,)
    assert UNFIT not in outcome.hints[2].kinds
    said = next(json.loads(each) for each in broker.messages if each.startswith("["))
    assert said == [["a", 0, "a", "a", False], ["c", 2, None, "c", True], ["d", 3, "d", "d", True]]


async def test_a_decision_of_the_handler_is_for_those_that_it_was_given(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)
    outcome = await bench.run("all_of_it", records=[{"id": "a", **BAD}, {"id": "b", **GOOD}])
    assert isinstance(outcome, Succeeded)
    assert outcome.decided == {1: None}
    assert outcome.errors[0].startswith("SchemaRefused")
    assert outcome.errors[1] == "not wanted"


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_where_none_fits_the_handler_is_not_called(pool_of: PoolOf, concurrency: int) -> None:
    bench, broker = await pool_of(APP), Recorder()
    outcome = await bench.run("unseen", records=[{"id": "a", **BAD}], broker=broker, concurrency=concurrency)
    assert isinstance(outcome, Succeeded)
    assert list(outcome.errors) == [0]
    assert broker.messages == []


@pytest.mark.parametrize(
    ("op", "rows", "said"),
    [
        ("insert", {"budget": "5"}, "insert Contact: budget must be a whole number, and is a text."),
        ("update", [{"id": "1", "budget": 5}, {"id": "2", "budget": []}], "update Contact, row 1: budget must be"),
        ("upsert", {"id": "1", "tags": "x"}, "upsert Contact: tags must be a list, and is a text."),
    ],
)
async def test_what_a_handler_writes_is_refused_before_it_is_held(
    pool_of: PoolOf, op: str, rows: object, said: str
) -> None:
    bench, broker = await pool_of(APP), Recorder()
    records = [{"id": "a", "op": op, "rows": json.dumps(rows)}]
    outcome = await bench.run("write", records=records, broker=broker)
    assert isinstance(outcome, Succeeded)
    assert said in broker.messages[0]
    assert [asked["object"] for verb, asked in broker.asked if verb == "dml"] == ["Other"], "it has no schema"


async def test_two_schemas_of_an_object_are_an_error_of_the_app(pool_of: PoolOf) -> None:
    app = """
    from circuit_script import ContactSchema
    class One(ContactSchema, object="Contact"): pass
    class Two(ContactSchema, object="Contact"): pass
    """
    with pytest.raises(Exception, match=r"has the schema app\.One already"):
        await pool_of(app)


async def test_a_validator_that_breaks_fails_its_record_and_may_be_tried_again(pool_of: PoolOf) -> None:
    app = """
    from pydantic import field_validator
    from circuit_script import ContactSchema

    class Contact(ContactSchema, object="Contact"):
        @field_validator("city")
        @classmethod
        def look_up(cls, value):
            return {}[value]

    @trigger("Contact", ["afterInsert"])
    async def look(context):
        log.info(str(len(context.new_records)))
    """
    bench, broker = await pool_of(app), Recorder()
    outcome = await bench.run("look", records=[{"id": "a", "city": "Waco"}, {"id": "b"}], broker=broker)
    assert isinstance(outcome, Succeeded)
    assert outcome.errors == {0: "Contact: KeyError: 'Waco'"}
    assert UNFIT not in outcome.hints[0].kinds
    assert broker.messages == ["1"]
    assert not isinstance(outcome, Failed)
