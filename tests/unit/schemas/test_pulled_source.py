"""Schemas that are written from what a CRM says: it may say what it likes, and is never obeyed."""

from __future__ import annotations

import ast
import io
import itertools
import subprocess
import sys
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_script.schemas.comparing import changes
from circuit_script.schemas.facts import FieldFacts, Kind, ObjectFacts
from circuit_script.schemas.fitting import unfit
from circuit_script.schemas.layout import quoted, remark
from circuit_script.schemas.registered import SCHEMAS
from circuit_script.schemas.source import MARK, source_of

HOSTILE = (
    '"""', "'''", '"', "'", "\\", "\\N{", "\n", "\r", "\x0c", "\x85", "\u2028", "\u202e", "\u2066", "\x00", "\ud800",
    "#", "# noqa", "# type: ignore", "# fmt: off", "{", "}", "__import__('os')", "\n    evil = 1\n", "𝐱", "ﬁ", "é", "٣",
    "None", "class", "str", "json", "register", "mro", "model_config", "__class__", "_x", "1a", "", " ", "Any",
    "Number", "id", "email",
)  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=4)), max_size=5).map("".join)
facts = st.builds(
    FieldFacts,
    name=texts,
    label=texts,
    kind=st.sampled_from(get_args(Kind)),
    also=st.lists(texts, max_size=2).map(tuple),
    choices=st.lists(texts, max_size=6).map(tuple),
    required=st.booleans(),
    writable=st.booleans(),
    length=st.none() | st.integers(-1, 300) | st.just(10**30),
    spelled=st.booleans(),
    said=texts,
)
objects = st.lists(
    st.builds(
        ObjectFacts,
        st.sampled_from(["Contact", "Opportunity", "Lead", "Invoice__c", "Any", "Field", "str"]),
        st.lists(facts, max_size=6).map(tuple),
    ),
    max_size=3,
    unique_by=lambda each: each.object,
)
COMMAND = "circuit-script objects pull toy"
ALLOWED = {
    "Annotated", "Any", "Literal", "AliasChoices", "Field", "Blank", "Flag", "Moment", "Number", "Parted",
    "SpelledFlag", "SpelledNumber", "SpelledWhole", "Whole", "str", "list", "ContactSchema", "OpportunitySchema",
    "ObjectSchema",
}  # fmt: skip
NODES = (ast.Name, ast.Constant, ast.Subscript, ast.BinOp, ast.BitOr, ast.Tuple, ast.Call, ast.keyword, ast.Load)
MODULES = {"typing", "circuit_script", "circuit_script.schemas.kinds", "pydantic"}
FUNCTIONS = {"Field", "AliasChoices"}


@pytest.fixture(autouse=True)
def none_is_left() -> Iterator[None]:
    before = dict(SCHEMAS)
    SCHEMAS.clear()
    yield
    SCHEMAS.clear()
    SCHEMAS.update(before)


def classes_of(source: str) -> dict[str, list[str]]:
    """The attributes of each class, by the object that it registers; anything else in the module fails."""
    found: dict[str, list[str]] = {}
    for each in ast.parse(source).body:
        if isinstance(each, ast.ImportFrom):
            assert each.module in MODULES
            assert {one.name for one in each.names} <= ALLOWED
            continue
        assert isinstance(each, ast.ClassDef), ast.dump(each)
        assert [one.id for one in each.bases if isinstance(one, ast.Name)]
        assert not each.decorator_list
        (keyword,) = each.keywords
        assert keyword.arg == "object"
        assert isinstance(keyword.value, ast.Constant)
        docstring, *fields = each.body
        assert isinstance(docstring, ast.Expr)
        assert isinstance(docstring.value, ast.Constant)
        names = []
        for one in fields:
            assert isinstance(one, ast.AnnAssign), ast.dump(one)
            assert isinstance(one.target, ast.Name)
            assert isinstance(one.value, ast.Constant)
            assert one.value.value is None
            for inner in ast.walk(one.annotation):
                assert isinstance(inner, NODES), ast.dump(inner)
                assert not isinstance(inner, ast.Name) or inner.id in ALLOWED
                assert not isinstance(inner, ast.Call) or getattr(inner.func, "id", "") in FUNCTIONS
            names.append(one.target.id)
        assert len(set(names)) == len(names)
        found[keyword.value.value] = names
    return found


def loaded(source: str) -> dict[str, Any]:
    """The schemas that a module registers. Only what `classes_of` has looked through is run."""
    classes_of(source)
    SCHEMAS.clear()
    exec(compile(source, "pulled.py", "exec", dont_inherit=True), {"__name__": "pulled"})
    return dict(SCHEMAS)


@given(objects)
def test_nothing_that_a_vendor_says_leaves_its_literal_or_its_comment(found: list[ObjectFacts]) -> None:
    source = source_of(found, "toy", COMMAND)
    assert source == source_of([*reversed(found)], "toy", COMMAND)
    assert all(each.isprintable() or each == "\n" for each in source)
    assert source.startswith(MARK)
    assert classes_of(source).keys() == {each.object for each in found}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.start[0] > 2:
            assert token.line.strip() == token.string
            assert "#" not in token.string[1:]
            assert token.string[2] in "\"'" or token.string[2:].startswith(("needed", "read only", "of a type"))


@given(objects)
def test_the_fields_are_those_that_the_vendor_named(found: list[ObjectFacts]) -> None:
    for name, schema in loaded(source_of(found, "toy", COMMAND)).items():
        usual = next(each for each in schema.__mro__ if each.__module__.startswith("circuit_script"))
        (said,) = (each for each in found if each.object == name)
        named = {each.name for each in said.fields if _whole(each.name)} - {"id", "customFields", ""}
        own = {each: schema.model_fields[each] for each in schema.__annotations__}
        told = [
            getattr(each.validation_alias, "choices", [each.validation_alias or name]) for name, each in own.items()
        ]
        flat = [*itertools.chain.from_iterable(told)]
        assert len(set(flat)) == len(flat), "one name of records belongs to one field"
        assert {each[0] for each in told} == named
        assert schema.model_fields.keys() >= usual.model_fields.keys(), "the usual fields are as they were"
        assert unfit(schema, dict.fromkeys(named)) is None, "a record may have nothing in each of them"


def test_names_that_a_class_has_of_its_own_and_limits_beyond_all_bounds_let_the_app_load() -> None:
    said = (FieldFacts("register"), FieldFacts("mro"), FieldFacts("long", kind="text", length=10**30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema = loaded(source_of([ObjectFacts("Lead", said)], "toy", COMMAND))["Lead"]
    assert unfit(schema, {"register": "a", "mro": "b", "long": "c"}) is None


def _whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return len(text) <= 200


@settings(max_examples=25)
@given(objects)
def test_it_is_formatted_as_ruff_formats_it_in_narrow_and_wide_files(found: list[ObjectFacts]) -> None:
    source = source_of(found, "toy", COMMAND)
    for width in ("88", "120"):
        ran = subprocess.run(
            [Path(sys.executable).parent / "ruff", "format", "--isolated", "--line-length", width, "--diff", "-"],
            input=source, capture_output=True, text=True, encoding="utf-8",
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr


@given(texts)
def test_a_literal_is_the_text_that_it_was(text: str) -> None:
    assert ast.literal_eval(quoted(text)) == text
    assert "#" not in remark(text)
    assert "\n" not in remark(text)


KINDS: list[tuple[FieldFacts, list[Any], list[Any]]] = [
    (FieldFacts("x", kind="text", length=3), ["abc", "", None], ["abcd", 5]),
    (FieldFacts("x", kind="email"), ["a@b.example"], [True]),
    (FieldFacts("x", kind="number"), [5, 5.5, "", None], ["5", "many", True]),
    (FieldFacts("x", kind="money", spelled=True), [5.5, "5.5", "-1e3", ""], ["many", "nan", "1,5"]),
    (FieldFacts("x", kind="integer"), [5, ""], [5.5, "5"]),
    (FieldFacts("x", kind="integer", spelled=True), [5, "5", "5.0"], ["5.5", "five"]),
    (FieldFacts("x", kind="boolean"), [True, ""], ["true", 1]),
    (FieldFacts("x", kind="boolean", spelled=True), [True, "TRUE", "false"], ["yes", 1]),
    (FieldFacts("x", kind="date"), ["2026-01-31", 1769817600000, None], [True, []]),
    (FieldFacts("x", kind="choice", choices=("a", "b")), ["a", "", None], ["c", 1, ["a"]]),
    (FieldFacts("x", kind="choice"), ["anything"], [1]),
    (FieldFacts("x", kind="choices", choices=("a", "b")), [["a", "b"], [], ""], [["c"], "a;b"]),
    (FieldFacts("x", kind="choices", choices=("a", "b"), spelled=True), [["a"], "b;a", ""], [["c"], "a;c"]),
    (FieldFacts("x", kind="unknown", said="NEW"), [5, "x", {"a": [1]}], []),
]


@pytest.mark.parametrize(("field", "fit", "not_fit"), KINDS, ids=lambda each: getattr(each, "kind", ""))
def test_each_kind_takes_what_a_crm_sends_and_nothing_else(
    field: FieldFacts, fit: list[Any], not_fit: list[Any]
) -> None:
    schema = loaded(source_of([ObjectFacts("Lead", (field,))], "toy", COMMAND))["Lead"]
    assert [unfit(schema, {"x": each}) for each in fit] == [None] * len(fit)
    assert all((unfit(schema, {"x": each}) or "").startswith("x") for each in not_fit)


def test_a_field_that_records_have_by_its_id_is_told_by_its_usual_name() -> None:
    field = FieldFacts("the budget", kind="number", also=("8fK2xQ",))
    schema = loaded(source_of([ObjectFacts("Contact", (field,))], "toy", COMMAND))["Contact"]
    wrong = "the budget must be int | float | None, and is a text"
    assert unfit(schema, {"8fK2xQ": "many"}) == wrong
    assert unfit(schema, {"the budget": "many", "8fK2xQ": 5}) == wrong
    assert unfit(schema, {"8fK2xQ": 5}) is None


def test_long_lists_of_choices_are_told_in_few_words() -> None:
    field = FieldFacts("stage", kind="choice", choices=tuple(f"stage {number}" for number in range(300)))
    schema = loaded(source_of([ObjectFacts("Contact", (field,))], "toy", COMMAND))["Contact"]
    told = unfit(schema, {"stage": "none"})
    assert told is not None
    assert told.startswith("stage must be 'stage 0', ")
    assert len(told) < 250


def test_the_same_schema_with_more_to_it_takes_its_place() -> None:
    contact = loaded(source_of([ObjectFacts("Contact", ())], "toy", COMMAND))["Contact"]
    lead = type("Lead", (contact,), {"__annotations__": {"extra": int | None}}, object="Contact")
    assert SCHEMAS["Contact"] is lead
    with pytest.raises(TypeError, match="Contact has the schema"):
        type("Other", contact.__mro__[1:2], {}, object="Contact")


def test_a_comparison_names_each_field_that_came_went_or_changed() -> None:
    before = [FieldFacts("a", kind="text"), FieldFacts("b", kind="number"), FieldFacts("c", "Sea")]
    after = [FieldFacts("b", kind="integer"), FieldFacts("c", "See"), FieldFacts("d", kind="boolean")]
    old, new = (source_of([ObjectFacts("Lead", tuple(each))], "toy", COMMAND) for each in (before, after))
    assert changes(old, old) == []
    told = [(each.how, each.field, each.was, each.now) for each in changes(old, new)]
    said = '  # "%s"; of a type that is not known here: ""'
    assert told == [
        ("removed", "a", "str | None", ""),
        ("changed", "b", "Number", "Whole"),
        ("changed", "c", "Any" + said % "Sea", "Any" + said % "See"),
        ("added", "d", "", "Flag"),
    ]
    assert [each.object for each in changes(old, new + "# a person's\n") if each.field == ""] == []
    assert [(each.how, each.object) for each in changes(old, old + "# a person's\n")] == [("changed", "")]
    with pytest.raises(SyntaxError):
        changes("class (", new)
    with pytest.raises(SyntaxError):
        changes("\x00", new)


@pytest.mark.parametrize("name", ["", "2-3465404", "a b", "x\n", "Größe", "a.b"])
def test_an_object_whose_name_cannot_be_registered_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of an object"):
        source_of([ObjectFacts(name, ())], "toy", COMMAND)
