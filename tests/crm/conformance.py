"""What every connector to a CRM does, whoever its vendor is: a test file gives a fixture ``crm`` (a `Harness`), and
subclasses `Conformance`. What a vendor cannot do it declares, and the case that asks for it is skipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import (
    Delivered,
    Delivery,
    Effect,
    Fields,
    InDoubt,
    Later,
    Refused,
    SlowDown,
    Unknown,
)
from circuit_script.connectors.homes import Vendor
from circuit_script.connectors.query import Condition, Order, Query, Where, every, in_order, matches
from circuit_script.connectors.reading import rows_of
from circuit_script.connectors.values import moment

Kind = Literal["text", "number", "moment", "flag"]
How = Literal["429", "500", "drop_before", "drop_after", "401"]
WRITES = ("insert", "update", "upsert", "delete")
STRANGE = "Zoë 🦄 Ñandú — 東京 \u202eabc 'quoted' \"twice\" \\ % _ <b>"


class Harness(Protocol):
    """A connector and its vendor. It may also have ``bad``, fields that the vendor refuses, with the name of the one
    that is at fault; ``wait``, the seconds that its vendor's 429 asks for; and ``many``, how many records are many."""

    connector: Vendor
    tenant: str
    object: str

    async def seed(self, rows: Sequence[Fields]) -> list[str]:
        """Put records into the vendor behind our back; their ids."""
        ...

    async def stored(self, ids: Sequence[str]) -> list[Fields | None]:
        """The records as the vendor has them, in our names of fields."""
        ...

    def fail_next(self, how: How, times: int = 1) -> None: ...

    def calls(self) -> int:
        """How many requests the vendor has heard."""
        ...

    def field(self, kind: Kind) -> str | None:
        """A field of that kind that may be written; None where it has none."""
        ...


def effect_of(crm: Harness, operation: str, payload: Fields) -> Effect:
    """A write as the courier hands it over; of a new record the reference is its own id."""
    id_ = uuid7()
    payload = payload if payload.get("id") else {**payload, "id": str(id_)}
    return Effect(id_, crm.tenant, operation, crm.object, payload["id"], payload)


async def deliver(crm: Harness, operation: str, effects: Sequence[Effect]) -> list[Delivery]:
    """One bulk: a result for each. As with the courier, raising is Unknown."""
    try:
        found = await crm.connector.deliver(operation, effects)
    except Exception as error:
        return [Unknown(repr(error))] * len(effects)
    results = list(found) if isinstance(found, Sequence) else [found] * len(effects)
    assert len(results) == len(effects), "results are parallel to the effects, or one for all"
    return results


async def write(crm: Harness, operation: str, *payloads: Fields) -> list[Delivery]:
    """Any number of writes, in bulks of the size that the connector takes."""
    effects = [effect_of(crm, operation, each) for each in payloads]
    size, results = crm.connector.operations[operation].bulk, []
    for start in range(0, len(effects), size):
        results += await deliver(crm, operation, effects[start : start + size])
    return results


def made_by(result: Delivery) -> str:
    assert isinstance(result, Delivered), result
    assert result.vendor_id, "who makes ids tells them"
    return result.vendor_id


def need(crm: Harness, kind: Kind) -> str:
    name = crm.field(kind)
    if name is None:
        pytest.skip(f"it has no field for a {kind}")
    return name


class Conformance:
    """The cases. Each is a promise that the platform builds on."""

    # Reads --------------------------------------------------------------------------------------

    async def test_it_finds_what_every_comparison_asks_for(self, crm: Harness) -> None:
        name = need(crm, "text")
        values = ["anna", "Anna B", "bert", "zed", "", None]
        ids = await crm.seed([{name: each} for each in values])
        there = [row for row in await crm.stored(ids) if row is not None]
        mine = Condition("id", "in", ids)
        asked: list[Where] = [
            Condition(name, "eq", "anna"), Condition(name, "ne", "anna"), Condition(name, "gt", "anna"),
            Condition(name, "ge", "bert"), Condition(name, "lt", "bert"), Condition(name, "le", "bert"),
            Condition(name, "in", ("anna", "zed")), Condition(name, "not_in", ("anna", "zed")),
            Condition(name, "contains", "NN"), Condition(name, "starts_with", "anna"),
            Condition(name, "ends_with", "B"), Condition(name, "is_null", True), Condition(name, "is_null", False),
        ]  # fmt: skip
        for where in asked:
            query = Query(crm.object, every(mine, where))
            found = {row["id"] for row in await rows_of(crm.connector, crm.tenant, query)}
            assert found == {row["id"] for row in there if matches(row, where)}, where

    async def test_it_compares_numbers_and_moments(self, crm: Harness) -> None:
        values: dict[Kind, tuple[list[Any], Any]] = {
            "number": ([1, 2.5, 10, None], 2.5),
            "moment": (["2026-01-01T00:00:00Z", "2026-06-01T12:00:00+02:00", "2026-12-31T23:59:59Z", None],
                       "2026-06-01T10:00:00Z"),
        }  # fmt: skip
        looked = 0
        for kind, (several, pivot) in values.items():
            name = crm.field(kind)
            if name is None:
                continue
            looked += 1
            ids = await crm.seed([{name: each} for each in several])
            there = [row for row in await crm.stored(ids) if row is not None]
            for op in ("eq", "gt", "ge", "lt", "le"):
                where = Condition(name, op, pivot)
                query = Query(crm.object, every(Condition("id", "in", ids), where))
                found = {row["id"] for row in await rows_of(crm.connector, crm.tenant, query)}
                assert found == {row["id"] for row in there if matches(row, where)}, where
        if not looked:
            pytest.skip("it has no fields for numbers and moments")

    async def test_pages_give_every_row_once_whatever_their_size(self, crm: Harness) -> None:
        name = need(crm, "text")
        ids = await crm.seed([{name: f"paged {n:03d}"} for n in range(23)])
        query = Query(crm.object, Condition(name, "starts_with", "paged"))
        for size in (1, 5, 1000):
            found: list[str] = []
            after, pages = None, 0
            while True:
                page = await crm.connector.page(crm.tenant, query, after, size)
                found += [row["id"] for row in page.rows if matches(row, query.where)]
                pages += 1
                after = page.after
                if after is None:
                    break
                assert pages < 2000
            assert sorted(found) == sorted(ids)

    async def test_rows_come_in_the_order_that_is_asked_for_with_nulls_last(self, crm: Harness) -> None:
        name = need(crm, "text")
        ids = await crm.seed([{name: each} for each in ("b", "a", None, "c", "a")])
        for descending in (False, True):
            query = Query(crm.object, Condition("id", "in", ids), (Order(name, descending),))
            found = await rows_of(crm.connector, crm.tenant, query)
            assert [row["id"] for row in found] == [row["id"] for row in in_order(found, query.order_by)]
            assert [row.get(name) or "" for row in found] == (["c", "b", "a", "a", ""] if descending
                                                              else ["a", "a", "b", "c", ""])  # fmt: skip

    async def test_a_limit_is_kept(self, crm: Harness) -> None:
        name = need(crm, "text")
        ids = await crm.seed([{name: f"limited {n}"} for n in range(7)])
        query = Query(crm.object, Condition("id", "in", ids), limit=3)
        assert len(await rows_of(crm.connector, crm.tenant, query)) == 3

    async def test_get_answers_in_the_order_of_the_ids_and_none_for_what_is_not_there(self, crm: Harness) -> None:
        name = need(crm, "text")
        one, two = await crm.seed([{name: "one"}, {name: "two"}])
        found = await crm.connector.get(crm.tenant, crm.object, [two, self.absent(two), one, two])
        assert [None if row is None else row[name] for row in found] == ["two", None, "one", "two"]
        assert [row["id"] for row in found if row is not None] == [two, one, two]
        assert await crm.connector.get(crm.tenant, crm.object, []) == []

    async def test_it_says_how_it_would_answer_without_asking_anybody(self, crm: Harness) -> None:
        before = crm.calls()
        name = need(crm, "text")
        plan = crm.connector.explain(Query(crm.object, Condition(name, "contains", "x"), (Order(name),)))
        assert plan.connector == crm.connector.name
        assert plan.requests
        assert crm.calls() == before

    # Writes -------------------------------------------------------------------------------------

    async def test_an_insert_makes_a_record_and_tells_its_id(self, crm: Harness) -> None:
        name = need(crm, "text")
        (result,) = await write(crm, "insert", {"fields": {name: "fresh"}})
        (row,) = await crm.stored([self.id_of(crm, "insert", result)])
        assert row is not None
        assert row[name] == "fresh"

    async def test_an_update_changes_what_it_says_and_nothing_else(self, crm: Harness) -> None:
        name, other = need(crm, "text"), crm.field("number")
        rest = {other: 7} if other else {}
        (id_,) = await crm.seed([{name: "before", **rest}])
        assert await write(crm, "update", {"id": id_, "fields": {name: "after"}}) == [_any_delivered()]
        (row,) = await crm.stored([id_])
        assert row is not None
        assert row[name] == "after"
        if other:
            assert row[other] == 7

    async def test_an_upsert_changes_what_is_there(self, crm: Harness) -> None:
        name = need(crm, "text")
        (id_,) = await crm.seed([{name: "before"}])
        assert await write(crm, "upsert", {"id": id_, "fields": {name: "after"}}) == [_any_delivered()]
        (row,) = await crm.stored([id_])
        assert row is not None
        assert row[name] == "after"

    async def test_an_upsert_without_an_id_makes_a_record(self, crm: Harness) -> None:
        name = need(crm, "text")
        (result,) = await write(crm, "upsert", {"fields": {name: "upserted"}})
        (row,) = await crm.stored([self.id_of(crm, "upsert", result)])
        assert row is not None
        assert row[name] == "upserted"

    async def test_a_delete_takes_the_record_away(self, crm: Harness) -> None:
        one, two = await crm.seed([{need(crm, "text"): each} for each in ("one", "two")])
        assert await write(crm, "delete", {"id": one}) == [_any_delivered()]
        gone, stays = await crm.stored([one, two])
        assert gone is None
        assert stays is not None

    async def test_one_bad_record_fails_alone_with_its_reason(self, crm: Harness) -> None:
        name = need(crm, "text")
        ids = await crm.seed([{name: f"n{n}"} for n in range(3)])
        bad = getattr(crm, "bad", None)
        if bad is not None:
            fields, field_ = bad
            payloads: list[Fields] = [{"id": each, "fields": {name: "new"}} for each in ids]
            payloads[1]["fields"] = fields
        else:
            field_ = ""
            payloads = [{"id": each, "fields": {name: "new"}} for each in (ids[0], self.absent(ids[1]), ids[2])]
        first, refused, last = await write(crm, "update", *payloads)
        assert (first, last) == (_any_delivered(), _any_delivered())
        assert isinstance(refused, Refused)
        assert refused.reason
        assert field_ in refused.reason
        rows = await crm.stored(ids)
        assert [row is not None and row[name] for row in rows] == ["new", "n1", "new"]

    async def test_writes_of_one_record_are_made_in_their_order(self, crm: Harness) -> None:
        name = need(crm, "text")
        (id_,) = await crm.seed([{name: "0"}])
        for n in range(1, 6):
            assert await write(crm, "update", {"id": id_, "fields": {name: str(n)}}) == [_any_delivered()]
        (row,) = await crm.stored([id_])
        assert row is not None
        assert row[name] == "5"

    # What goes wrong ----------------------------------------------------------------------------

    async def test_a_rate_limit_says_when_and_loses_nothing(self, crm: Harness) -> None:
        name = need(crm, "text")
        effect = effect_of(crm, "insert", {"fields": {name: "later"}})
        crm.fail_next("429")
        (result,) = await deliver(crm, "insert", [effect])
        assert isinstance(result, SlowDown), result
        if (wait := getattr(crm, "wait", None)) is not None:
            assert result.after == pytest.approx(wait, abs=1.0)
        (again,) = await deliver(crm, "insert", [effect])
        rows = await crm.stored([self.id_of(crm, "insert", again)])
        assert [row is not None and row[name] for row in rows] == ["later"]

    async def test_a_vendor_that_is_down_refuses_nothing(self, crm: Harness) -> None:
        effect = effect_of(crm, "insert", {"fields": {need(crm, "text"): "down"}})
        crm.fail_next("500")
        (result,) = await deliver(crm, "insert", [effect])
        assert isinstance(result, Later | Unknown), result

    async def test_a_refused_token_is_no_fault_of_a_write(self, crm: Harness) -> None:
        name = need(crm, "text")
        (id_,) = await crm.seed([{name: "before"}])
        crm.fail_next("401", times=5)
        (result,) = await write(crm, "update", {"id": id_, "fields": {name: "after"}})
        assert isinstance(result, Later), result
        assert result.down

    async def test_what_ends_a_record_is_declared_irreversible(self, crm: Harness) -> None:
        declared = {name for name, each in crm.connector.operations.items() if each.irreversible}
        assert "delete" in declared
        assert not declared & {"update", "upsert"}, "what can be written again can be taken back"
        others = crm.connector.operations.keys() - set(WRITES)
        assert others <= declared, "what is no write of a record reaches somebody"

    async def test_the_same_effect_twice_makes_one_record_or_it_is_declared(self, crm: Harness) -> None:
        name = need(crm, "text")
        operation = crm.connector.operations["insert"]
        effect = effect_of(crm, "insert", {"fields": {name: "only once"}})
        (first,) = await deliver(crm, "insert", [effect])
        if operation.in_doubt is InDoubt.LOOK_UP:
            assert await crm.connector.look_up(effect) == first
            return
        if operation.in_doubt is InDoubt.ASK_A_PERSON:
            return
        (second,) = await deliver(crm, "insert", [effect])
        assert second == first
        query = Query(crm.object, Condition(name, "eq", "only once"))
        assert len(await rows_of(crm.connector, crm.tenant, query)) == 1

    @pytest.mark.parametrize("operation", WRITES)
    @pytest.mark.parametrize("how", ["drop_before", "drop_after"])
    async def test_what_got_no_answer_is_found_out_or_repeated(self, crm: Harness, operation: str, how: How) -> None:
        name = need(crm, "text")
        (id_,) = await crm.seed([{name: "before"}])
        payload: Fields = {"id": id_, "fields": {name: f"doubt {how}"}}
        if operation == "delete":
            del payload["fields"]
        elif operation == "insert":
            del payload["id"]
        effect = effect_of(crm, operation, payload)
        crm.fail_next(how)
        (result,) = await deliver(crm, operation, [effect])
        assert isinstance(result, Unknown | Later) if how == "drop_before" else isinstance(result, Unknown), result
        match crm.connector.operations[operation].in_doubt:
            case InDoubt.LOOK_UP:
                found = await crm.connector.look_up(effect)
                if how == "drop_after":
                    assert isinstance(found, Delivered), found
                    result = found
                else:
                    assert found is None or isinstance(found, Later), found
                    if found is None:
                        return
                    (result,) = await deliver(crm, operation, [effect])
            case InDoubt.REPEAT:
                (result,) = await deliver(crm, operation, [effect])
            case InDoubt.ASK_A_PERSON:
                return
        if operation == "delete":
            assert isinstance(result, Delivered) or "missing" in str(result) or isinstance(result, Refused), result
            assert await crm.stored([id_]) == [None]
            return
        made = self.id_of(crm, operation, result, id_)
        (row,) = await crm.stored([made])
        assert row is not None
        assert row[name] == f"doubt {how}"
        query = Query(crm.object, Condition(name, "eq", f"doubt {how}"))
        assert len(await rows_of(crm.connector, crm.tenant, query)) == 1

    # Values -------------------------------------------------------------------------------------

    async def test_text_comes_back_as_it_went(self, crm: Harness) -> None:
        name = need(crm, "text")
        (id_,) = await crm.seed([{name: "plain"}])
        assert await write(crm, "update", {"id": id_, "fields": {name: STRANGE}}) == [_any_delivered()]
        (row,) = await crm.connector.get(crm.tenant, crm.object, [id_])
        assert row is not None
        assert row[name] == STRANGE
        found = await rows_of(crm.connector, crm.tenant, Query(crm.object, Condition(name, "eq", STRANGE)))
        assert [each["id"] for each in found] == [id_]

    async def test_null_empties_a_field(self, crm: Harness) -> None:
        name = need(crm, "text")
        (id_,) = await crm.seed([{name: "full"}])
        assert await write(crm, "update", {"id": id_, "fields": {name: None}}) == [_any_delivered()]
        (row,) = await crm.connector.get(crm.tenant, crm.object, [id_])
        assert row is not None
        assert not row.get(name)

    @pytest.mark.parametrize("value", [2**53, 0.1, -1, 0])
    async def test_numbers_come_back_exactly(self, crm: Harness, value: float) -> None:
        name = need(crm, "number")
        (id_,) = await crm.seed([{name: 5}])
        assert await write(crm, "update", {"id": id_, "fields": {name: value}}) == [_any_delivered()]
        (row,) = await crm.connector.get(crm.tenant, crm.object, [id_])
        assert row is not None
        assert row[name] == value

    async def test_flags_stay_flags(self, crm: Harness) -> None:
        name = need(crm, "flag")
        (id_,) = await crm.seed([{name: True}])
        assert await write(crm, "update", {"id": id_, "fields": {name: False}}) == [_any_delivered()]
        (row,) = await crm.connector.get(crm.tenant, crm.object, [id_])
        assert row is not None
        assert row[name] is False

    async def test_moments_are_the_same_instant_in_any_time_zone(self, crm: Harness) -> None:
        name = need(crm, "moment")
        said = "2026-03-08T01:30:00-08:00"
        (id_,) = await crm.seed([{name: "2020-01-01T00:00:00Z"}])
        assert await write(crm, "update", {"id": id_, "fields": {name: said}}) == [_any_delivered()]
        (row,) = await crm.connector.get(crm.tenant, crm.object, [id_])
        assert row is not None
        assert moment(row[name]) == moment(said)

    @pytest.mark.slow
    async def test_many_records_take_no_more_requests_than_they_must(self, crm: Harness) -> None:
        name, many = need(crm, "text"), getattr(crm, "many", 10_000)
        before = crm.calls()
        results = await write(crm, "insert", *({"fields": {name: f"many {n}"}} for n in range(many)))
        bulk = crm.connector.operations["insert"].bulk
        assert crm.calls() - before <= math.ceil(many / bulk) + 1  # a token, perhaps
        ids = [self.id_of(crm, "insert", each) for each in results]
        assert len(set(ids)) == many
        places = sorted({0, many // 2, many - 1})
        rows = await crm.stored([ids[place] for place in places])
        assert [row is not None and row[name] for row in rows] == [f"many {place}" for place in places]

    # ---------------------------------------------------------------------------------------------

    def absent(self, like: str) -> str:
        """An id of the shape of this one, of which there is no record."""
        return like[:-4] + "".join("9" if each.isdigit() else "z" for each in like[-4:])

    def id_of(self, crm: Harness, operation: str, result: Delivery, known: str = "") -> str:
        """The id of what a write made, or of what it changed."""
        assert isinstance(result, Delivered), result
        if operation in ("insert", "upsert") and not known:
            return made_by(result) if crm.connector.operations[operation].makes_ids else result.vendor_id or ""
        return result.vendor_id or known


class _AnyDelivered:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Delivered)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "Delivered(…)"


def _any_delivered() -> Any:
    """Equal to whatever says that it was done."""
    return _AnyDelivered()
