from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator

from circuit_script import (
    AppointmentSchema,
    CampaignSchema,
    ContactSchema,
    MessageSchema,
    NoteSchema,
    ObjectSchema,
    OpportunitySchema,
    ReviewSchema,
    TaskSchema,
    schema,
)
from circuit_script.events.sources.gohighlevel import GoHighLevel, kind_of
from circuit_script.schemas.fitting import unfit
from circuit_script.schemas.registered import SCHEMAS

USUAL: dict[str, type[ObjectSchema]] = {
    "Contact": ContactSchema,
    "Opportunity": OpportunitySchema,
    "Review": ReviewSchema,
    "Campaign": CampaignSchema,
    "Appointment": AppointmentSchema,
    "Message": MessageSchema,
    "Note": NoteSchema,
    "Task": TaskSchema,
}
SHARED = os.environ.get("CIRCUIT_SHARED")


class Lead(ContactSchema):
    budget: int | None
    score: Annotated[float, Field(ge=0, le=100)] = 0.0
    stage: Literal["new", "won"] | None = None
    parts: list[int] | None = None

    @field_validator("email")
    @classmethod
    def _has_a_sign(cls, value: str | None) -> str | None:
        if value is not None and "@" not in value:
            raise ValueError("an address has an @ in it")
        return value


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    before = dict(SCHEMAS)
    SCHEMAS.clear()
    yield
    SCHEMAS.clear()
    SCHEMAS.update(before)


@pytest.mark.parametrize("name", USUAL)
def test_an_empty_record_and_one_with_more_fit_the_usual_schemas(name: str) -> None:
    assert unfit(USUAL[name], {}) is None
    assert unfit(USUAL[name], {"id": "1", "anything": {"else": [1]}, "more": None}) is None
    assert unfit(USUAL[name], dict.fromkeys(USUAL[name].model_fields)) is None


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        ({"budget": "500"}, "budget must be a whole number, and is a text"),
        ({"budget": 2.5}, "budget must be a whole number, and is a number"),
        ({"budget": True}, "budget must be a whole number, and is true or false"),
        ({"firstName": 5}, "firstName must be a text, and is a number"),
        ({"tags": "vip"}, "tags must be a list, and is a text"),
        ({"tags": ["vip", 7]}, "tags[1] must be a text, and is a number"),
        ({"parts": [1, "two"]}, "parts[1] must be a whole number, and is a text"),
        ({"dnd": "no"}, "dnd must be true or false, and is a text"),
        ({"score": 101}, "score must be at most 100.0"),
        ({"stage": "lost"}, "stage must be 'new' or 'won'"),
        ({"email": "ada"}, "email: an address has an @ in it"),
        ({"postalCode": ["1"]}, "postalCode must be str | int | None, and is a list"),
        (
            {"budget": "x", "dnd": 7, "tags": 1, "parts": 2},
            "tags must be a list, and is a number; dnd must be true or false, and is a number; "
            "budget must be a whole number, and is a text, and 1 more",
        ),
    ],
)
def test_what_is_wrong_is_told_by_field_and_kind_and_never_by_value(record: dict[str, Any], wrong: str) -> None:
    assert unfit(Lead, record) == wrong


def test_a_field_that_may_be_none_may_be_missing_and_another_may_not() -> None:
    class Strict(ObjectSchema):
        price: int
        note: str | None

    assert unfit(Lead, {}) is None
    assert unfit(Strict, {}) == "price is missing"
    assert unfit(Strict, {}, whole=False) is None
    assert unfit(Strict, {"price": "1"}, whole=False) == "price must be a whole number, and is a text"
    assert unfit(Strict, {"price": 1}) is None


def test_an_empty_text_is_no_number_and_none_is_meant() -> None:
    assert unfit(OpportunitySchema, {"monetaryValue": ""}) is None
    assert unfit(OpportunitySchema, {"monetaryValue": "500"}) == (
        "monetaryValue must be int | float | None, and is a text"
    )


def test_a_class_is_registered_by_its_keyword_or_by_the_decorator() -> None:
    class Contact(ContactSchema, object="Contact"):
        budget: int | None

    @schema("Deal")
    class Deal(OpportunitySchema):
        pass

    assert {"Contact": Contact, "Deal": Deal} == SCHEMAS
    assert schema("Review")(ReviewSchema) is ReviewSchema
    assert SCHEMAS["Review"] is ReviewSchema


def test_an_object_has_one_schema_and_a_name() -> None:
    schema("Contact")(Lead)
    schema("Contact")(Lead)
    for other in (ContactSchema, OpportunitySchema):
        with pytest.raises(TypeError, match=r"has the schema .*Lead already"):
            schema("Contact")(other)
    with pytest.raises(TypeError, match="no name of an object"):
        schema("a contact")(Lead)
    with pytest.raises(TypeError, match="a class below"):
        schema("Other")(dict)  # type: ignore[type-var]  # what is tried


def test_who_uses_no_schema_never_imports_pydantic() -> None:
    script = """
import sys
from circuit_script import CircuitDB, Context, trigger, log, secret
import circuit_script.execution.child.child, circuit_script.execution.child.together
assert "pydantic" not in sys.modules
from circuit_script import ContactSchema
assert "pydantic" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.skipif(SHARED is None, reason="CIRCUIT_SHARED names no folder with the vendor's examples")
def test_every_example_of_the_vendor_fits() -> None:
    tried = 0
    for path in sorted(Path(str(SHARED), "specs/ghl/webhooks").glob("*.json")):
        said = json.loads(path.read_text())
        if not isinstance(said, dict) or not isinstance(said.get("type"), str):
            continue
        name, _ = kind_of(said["type"])
        if name in USUAL:
            (record,) = GoHighLevel.records(path.read_bytes())
            assert unfit(USUAL[name], record) is None, path.name
            tried += 1
    assert tried > 20
