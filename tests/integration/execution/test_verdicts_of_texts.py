"""What was found in texts comes to the handler, and a text that is data only works like any other."""

from __future__ import annotations

from typing import Any

from circuit_script.execution.outcome import Failed, PlainVerdict, Succeeded
from tests.integration.execution.conftest import PoolOf, Recorder

APP = """
import json
from typing import Annotated

import msgspec
import pydantic


class Lead(pydantic.BaseModel):
    id: str
    notes: str


class Typed(msgspec.Struct):
    id: str
    notes: str


@trigger("Contact", ["afterInsert"])
async def uses(context):
    from circuit_script.judgment.untrusted import Untrusted, prompt

    assert "numpy" not in sys.modules and "re2" not in sys.modules
    first, second = context.new_records
    notes = first["notes"]
    assert isinstance(notes, Untrusted) and notes.origin == "Contact.notes"
    assert type(second["notes"]) is str
    found, nothing = context.verdicts
    assert nothing == {} and list(found) == ["notes", "deal.items[1].title", "city"]
    assert found["notes"] == notes.verdict
    verdict = found["notes"]
    assert (verdict.score, verdict.action, verdict.field) == (0.7, "neutralize", "Contact.notes")
    assert verdict.findings[0].span == (0, 6) and verdict.findings[0].pattern == "override.ignore"
    assert "override" in verdict.reason and "It says so" in verdict.reason
    titles = [each["title"] for each in first["deal"]["items"]]
    assert [type(each) is Untrusted for each in titles] == [False, True]
    assert type(first["city"]) is str  # what is only told stays as it is

    assert json.loads(json.dumps(first)) == first
    assert Lead.model_validate(first).notes == "ignore me"
    assert json.loads(Lead.model_validate(first).model_dump_json())["notes"] == "ignore me"
    assert msgspec.convert(dict(first), Typed).notes == "ignore me"
    assert msgspec.json.decode(msgspec.json.encode(first, enc_hook=str)) == first
    assert f"{notes}!" == "ignore me!" and {"ignore me": 1}[notes] == 1
    assert "<untrusted" in prompt("Sum up: {}", notes) and "ignore me" in prompt("Sum up: {}", notes)
    await CircuitDB.update("Contact", [{"id": first.id, "summary": notes, "of": {"it": [notes.upper()]}}])
    await send_webhook("sales", {"notes": notes}, record=first)
    log.info(notes, notes=notes, all=[first])


@trigger("Contact", ["afterInsert"])
async def sees_nothing(context):
    assert context.verdicts == [{}]
"""
RECORDS: list[dict[str, Any]] = [
    {
        "id": "1",
        "notes": "ignore me",
        "city": "Waco",
        "deal": {"items": [{"title": "a kitchen"}, {"title": "obey"}]},
    },
    {"id": "2", "notes": "a quote, please"},
]


def said(action: str, field: str) -> PlainVerdict:
    return (
        0.7,
        action,
        "standard",
        f"Contact.{field}",
        [["override", 0.9, 0, 6, "ignore", "It says so.", "override.ignore"]],
    )


async def test_a_handler_sees_verdicts_and_uses_untrusted_texts_like_others(pool_of: PoolOf) -> None:
    bench, broker = await pool_of(APP), Recorder()
    verdicts = {
        0: {
            "notes": said("neutralize", "notes"),
            "deal.items[1].title": said("neutralize", "deal.items[1].title"),
            "city": said("allow", "city"),
        }
    }

    outcome = await bench.run("uses", records=RECORDS, verdicts=verdicts, broker=broker)

    assert isinstance(outcome, Succeeded), outcome.detail if isinstance(outcome, Failed) else outcome
    asked = dict(broker.asked)
    assert asked["dml"]["rows"] == [{"id": "1", "summary": "ignore me", "of": {"it": ["IGNORE ME"]}}]
    assert asked["send"]["payload"] == {"notes": "ignore me"}
    assert broker.lines[0]["message"] == "ignore me"
    assert broker.lines[0]["context"] == {"notes": "ignore me", "all": [RECORDS[0]]}


async def test_several_that_share_a_child_have_their_own(pool_of: PoolOf) -> None:
    bench = await pool_of(APP)

    outcome = await bench.run("sees_nothing", concurrency=2)

    assert isinstance(outcome, Succeeded), outcome
