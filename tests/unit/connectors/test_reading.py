"""Pages made into rows, whatever a vendor can and cannot do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from circuit_script.connectors.query import Condition, Fields, Page, Plan, Query, orders
from circuit_script.connectors.reading import MOST_READ, Reading, only, rows_of
from circuit_script.errors import QueryRefused


class Vendor:
    """It filters nothing, orders nothing, and has pages of its own size at most."""

    def __init__(self, rows: Sequence[Fields], *, page: int = 100, ordered: bool = False) -> None:
        self.rows = rows
        self.size = page
        self.ordered = ordered
        self.asked: list[int] = []
        self.endless = False

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        self.asked.append(size)
        begin, size = int(after or 0), min(size, self.size)
        more = begin + size < len(self.rows) or self.endless
        return Page(list(self.rows[begin : begin + size]), str(begin + size) if more else None)

    async def get(self, tenant: str, object_: str, ids: Sequence[str]) -> list[Fields | None]:
        return [None for _ in ids]

    def explain(self, query: Query) -> Plan:
        return Plan("slowcrm", ("everything",), ordered=self.ordered)


def numbers(count: int) -> list[Fields]:
    return [{"id": f"{n:06}", "n": n, "even": n % 2 == 0} for n in range(count)]


async def test_rows_that_do_not_match_are_left_out_and_the_limit_counts_those_that_do() -> None:
    vendor = Vendor(numbers(1000), page=10)
    found = await rows_of(vendor, "t", Query("Contact", Condition("n", "ge", 25), limit=7))
    assert [row["n"] for row in found] == [25, 26, 27, 28, 29, 30, 31]
    assert len(vendor.asked) == 4, "and no more is read than it takes"


async def test_where_the_vendor_has_no_order_everything_is_read_and_put_in_order() -> None:
    vendor = Vendor(numbers(250))
    found = await rows_of(vendor, "t", Query("Contact", Condition("even", "eq", True), orders("-n"), limit=3))
    assert [row["n"] for row in found] == [248, 246, 244]
    assert len(vendor.asked) == 3


async def test_where_it_has_one_its_order_is_kept() -> None:
    vendor = Vendor(numbers(250), ordered=True)
    assert len(await rows_of(vendor, "t", Query("Contact", order_by=orders("n"), limit=150))) == 150
    assert len(vendor.asked) == 2


async def test_a_reading_gives_piece_after_piece() -> None:
    reading = Reading(Vendor(numbers(25), page=7), "t", Query("Contact", order_by=orders("-n"), limit=24))
    pieces = []
    while not reading.over:
        pieces.append([row["n"] for row in await reading.next(10)])
    assert [len(each) for each in pieces] == [10, 10, 4]
    assert [each for piece in pieces for each in piece] == list(range(24, 0, -1))
    assert reading.cut
    whole = Reading(Vendor(numbers(25), page=7), "t", Query("Contact", limit=25))
    assert len(await whole.next()) == 25
    assert whole.over
    assert not whole.cut


async def test_a_vendor_is_not_read_without_end() -> None:
    vendor = Vendor(numbers(5), page=1000)
    vendor.endless = True
    with pytest.raises(QueryRefused, match="does not come to an end"):
        await rows_of(vendor, "t", Query("Contact"))
    large = Vendor(numbers(MOST_READ + 2000), page=1000)
    with pytest.raises(QueryRefused, match=r"cannot filter all of n = -1") as refused:
        await rows_of(large, "t", Query("Contact", Condition("n", "eq", -1)))
    assert "explain()" in refused.value.cure


def test_of_a_row_only_what_is_wanted() -> None:
    assert only({"id": "1", "a": 1, "b": 2}, ("a", "none")) == {"id": "1", "a": 1}
    assert only({"id": "1", "a": 1}, ()) == {"id": "1", "a": 1}


class Circling(Vendor):
    """After its second page comes its first one."""

    async def page(self, tenant: str, query: Query, after: str | None = None, size: int = 1000) -> Page:
        self.asked.append(size)
        return Page(list(self.rows), "b" if after in (None, "a") else "a")


async def test_pages_that_go_in_circles_give_no_row_again_and_again() -> None:
    vendor = Circling(numbers(1))
    with pytest.raises(QueryRefused, match="does not come to an end"):
        await rows_of(vendor, "t", Query("Contact", limit=50_000))
    assert len(vendor.asked) == 3
