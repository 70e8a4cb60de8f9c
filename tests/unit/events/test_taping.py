"""What is noted of a CRM's pages, and what may be answered from it: neither more nor less than was read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from circuit_script.clock import uuid7
from circuit_script.connectors.connector import CRM, Fields, InDoubt, Operation, Page, Plan, Query, Stored
from circuit_script.connectors.homes import HomedCRM, Homes
from circuit_script.connectors.query import All, AnyOf, Condition, Not, equal, orders
from circuit_script.connectors.reading import rows_of
from circuit_script.effects.unit import UnitOfWork
from circuit_script.errors import QueryRefused, RequestRefused
from circuit_script.events.recordings import Ended, Recording, packed, unpacked
from circuit_script.events.taping import Tape, question_of, without_proof
from circuit_script.execution.broker.broker import BrokerParts, ExecutionBroker
from circuit_script.execution.outcome import HttpRequest, Work
from circuit_script.governor import Limits
from circuit_script.wiring.recorded_answers import RecordedCRM, RecordedJournal

LEADS = [{"id": f"l{n}", "score": n % 4, "city": "Oslo"} for n in range(10)]


class Vendor:
    """A CRM outside that gives three rows at once, and orders nothing."""

    name = "vendor"

    def __init__(self, rows: Sequence[Fields] = LEADS, ordered: bool = False) -> None:
        self.rows = list(rows)
        self.ordered = ordered

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        start = int(after or 0)
        found = [Stored(row, 7) for row in self.rows[start : start + 3]]
        return Page([*found], None if start + 3 >= len(self.rows) else str(start + 3))

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        by_id = {row["id"]: row for row in self.rows}
        return [dict(by_id[each]) if each in by_id else None for each in ids]

    def explain(self, query: Query) -> Plan:
        return Plan("vendor", ("GET /leads",), ordered=self.ordered)


def taped(largest: int = 1_000_000) -> Tape:
    tape = Tape(3, largest)
    tape.start(Work(uuid7(), "score", "acme", "Contact", "afterInsert", [{"id": "c1"}], [None], [{"id": 1}], Limits()))
    return tape


def read_back(tape: Tape) -> Recording:
    body = packed(tape.recording(tape.ended("succeeded", None, {})))
    assert body is not None
    return unpacked(body)


def answering(tape: Tape, explains: CRM | None = None) -> RecordedCRM:
    return RecordedCRM(read_back(tape), explains or Vendor(ordered=True))


BY_SCORE = Query("Lead", equal({"city": "Oslo"}), orders("-score"), limit=4)


async def test_what_a_vendor_did_not_order_is_put_in_order_again() -> None:
    tape = taped()
    live = await rows_of(tape.crm(Vendor()), "acme", BY_SCORE)
    assert [row["id"] for row in live] == ["l3", "l7", "l2", "l6"]
    found = answering(tape)
    again = await rows_of(found, "acme", BY_SCORE)
    assert again == live
    assert [row.version for row in again if isinstance(row, Stored)] == [7, 7, 7, 7]
    assert (found.explain(BY_SCORE).connector, found.asked) == ("vendor", [])


async def test_pages_that_were_not_read_live_are_refused_and_those_that_were_are_not() -> None:
    tape, query = taped(), Query("Lead", limit=4)
    vendor = Vendor()
    assert len(await rows_of(tape.crm(vendor), "acme", query)) == 4  # of two pages, of three rows each
    found = answering(tape)
    assert len(await rows_of(found, "acme", Query("Lead", limit=6))) == 6
    with pytest.raises(QueryRefused, match="Lead where everything from its next page on was not read when this ran"):
        await rows_of(found, "acme", Query("Lead", limit=7))
    assert found.asked == ["the query Lead where everything from its next page on"]
    assert await found.get("acme", "Lead", ["l5"]) == [LEADS[5]]  # all its fields stood in a page
    for tenant, id_ in (("acme", "l6"), ("other", "l5")):
        with pytest.raises(RequestRefused, match=f"the Lead {id_} was not read when this ran live"):
            await found.get(tenant, "Lead", [id_])


async def test_a_page_that_ended_at_its_limit_says_nothing_of_what_comes_after() -> None:
    class Short(Vendor):
        async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
            return Page(self.rows[: query.limit], None)

    tape = taped()
    await rows_of(tape.crm(Short()), "acme", Query("Lead", limit=4))
    assert len(await rows_of(answering(tape), "acme", Query("Lead", limit=3))) == 3
    with pytest.raises(QueryRefused):
        await rows_of(answering(tape), "acme", Query("Lead", limit=5))


async def test_the_same_question_gets_each_time_what_it_got_live_and_then_the_last_again() -> None:
    tape, vendor = taped(), Vendor(LEADS[:1])
    crm = tape.crm(vendor)
    for score in (1, 2):
        vendor.rows = [{"id": "l0", "score": score}]
        await crm.get("acme", "Lead", ["l0", "gone"])
        await rows_of(crm, "acme", Query("Lead"))
    found = answering(tape)
    for score in (1, 2, 2):
        row = {"id": "l0", "score": score}
        assert await found.get("acme", "Lead", ["gone", "l0"]) == [None, row]
        assert await rows_of(found, "acme", Query("Lead")) == [row]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (equal({"a": 1, "b": 2}), equal({"b": 2, "a": 1}), True),
        (Condition("a", "in", (1, 2)), Condition("a", "in", (2, 1)), True),
        (Condition("a", "in", (1,)), Condition("a", "eq", 1), False),
        (Condition("a", "eq", 1), Condition("a", "eq", "1"), False),
        (Not(equal({"a": 1})), equal({"a": 1}), False),
        (All((equal({"a": 1}), equal({"b": 1}))), AnyOf((equal({"a": 1}), equal({"b": 1}))), False),
    ],
)
def test_a_question_is_the_same_however_it_is_written(one: Any, other: Any, same: bool) -> None:
    assert (question_of(Query("Lead", one, limit=5)) == question_of(Query("Lead", other, fields=("a",)))) is same
    assert question_of(Query("Lead", one)) != question_of(Query("Contact", one))
    assert question_of(Query("Lead", one, orders("a"))) != question_of(Query("Lead", one, orders("-a")))


async def test_what_is_too_much_or_cannot_be_kept_ends_the_tape_and_not_the_execution() -> None:
    small = taped(largest=100)
    assert await small.crm(Vendor()).get("acme", "Lead", ["l1", "l2", "l3", "l4"]) == LEADS[1:5]
    assert not small.whole
    odd = taped()
    rows = [{"id": "l0", "n": 2**80}]
    assert await odd.crm(Vendor(rows)).get("acme", "Lead", ["l0"]) == rows
    assert not odd.whole


def test_a_journal_answers_who_asked_first_and_who_asks_for_the_batch() -> None:
    tape = taped()
    tape.reply(1, b"k", b"second")
    tape.reply(0, b"k", b"first")
    tape.reply(None, b"all", b"of all")
    journal = RecordedJournal(read_back(tape))
    assert [journal.find(owner, b"k") for owner in (0, 1, 2, None)] == [b"first", b"second", None, b"second"]
    assert [journal.find(owner, b"all") for owner in (None, 5)] == [b"of all", b"of all"]


async def test_writes_to_a_crm_outside_still_know_what_their_author_read() -> None:
    """The tape lies over the CRM that notes what is read of vendors, and not under it."""
    tape, unit, vendor = taped(), UnitOfWork("Contact", ["c1"]), Vendor()
    homes = Homes({"vendor": vendor}, objects={"Lead": "vendor"})  # type: ignore[dict-item]  # it is only read
    parts = BrokerParts(
        crm=HomedCRM(homes, vendor, None),  # type: ignore[arg-type]  # no reference is read
        client=httpx.AsyncClient(),
        knows=lambda connector, target: False,
        declared=lambda connector, operation: Operation(InDoubt.REPEAT),
        home=lambda tenant, object_: "vendor",
    )
    work = Work(uuid7(), "score", "acme", "Contact", "afterInsert", [{"id": "c1"}], [None], [{"id": 1}], Limits())
    journal = RecordedJournal(read_back(tape))
    broker = ExecutionBroker(
        work, parts, held=unit, journal=journal, log=lambda line: None, remaining=lambda: 9.0, tape=tape
    )
    await broker.request("get", {"object": "Lead", "ids": ["l1"]})
    await broker.request("dml", {"op": "update", "object": "Lead", "rows": [{"id": "l1", "score": 5}]})
    assert [write.seen for write in unit.writes] == [LEADS[1]]
    assert [(read.object, read.id) for read in tape.reads] == [("Lead", "l1")]


@pytest.mark.parametrize("name", ["Authorization", "cookie", "X-Api-Key", "x-hub-signature-256", "x-session-id"])
def test_what_proves_who_asks_is_not_kept(name: str) -> None:
    request = HttpRequest("GET", "/", "", ((name, "s3cret"), ("accept", "a/b")), b"")
    assert without_proof(request).headers == ((name, "[not kept]"), ("accept", "a/b"))


def test_a_tape_that_begins_anew_forgets_what_was_noted() -> None:
    tape = taped()
    tape.job("remind", "k", None)
    tape.on_head(200, [("a", "b")])
    tape.start(Work(uuid7(), "score", "acme", "", "GET /", [], [], [], Limits()))
    tape.on_head(201, [("a", "c")])
    tape.on_chunk(b"x")
    ended = tape.ended("succeeded", None, {})
    assert isinstance(ended, Ended)
    assert ended.answer is not None
    assert (tape.unique, ended.answer.status, ended.answer.headers, ended.answer.body) == ([], 201, (("a", "c"),), b"x")
