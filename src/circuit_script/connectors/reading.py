"""Reading a CRM: pages of it made into the rows that a query asks for, whatever its vendor can and cannot do."""

from __future__ import annotations

from collections.abc import Collection

from circuit_script.connectors.connector import CRM
from circuit_script.connectors.query import Fields, Query, in_order, matches, words
from circuit_script.errors import QueryRefused

PAGE = 1_000  # rows
MOST_READ = 100_000  # rows of a vendor that are looked at for one query
MOST_EMPTY = 500  # pages without a row, one after the other


class Reading:
    """One query, read page by page. ``over`` once there are no more rows.

    Every row is held against the query again. Where the vendor does not order, the first page reads everything that
    matches. Rows come up to ``query.limit``. Raises as the CRM does, and QueryRefused where the vendor would have to
    hand over too much.
    """

    __slots__ = ("_after", "_crm", "_found", "_given", "_looked", "_places", "_query", "_read", "_tenant",
                 "over")  # fmt: skip

    def __init__(self, crm: CRM, tenant: str, query: Query) -> None:
        self.over = False
        self._crm = crm
        self._tenant = tenant
        self._query = query
        self._after: str | None = None
        self._places: set[int] = set()  # hashes of where pages began: who names one again goes in circles
        self._found: list[Fields] = []  # rows that match and were not handed out yet
        self._given = 0
        self._looked = 0
        self._read = False  # to the last page

    async def next(self, size: int = PAGE) -> list[Fields]:
        """The next rows, ``size`` of them unless there are no more."""
        size = min(size, self._query.limit - self._given)
        if self._is_unordered():
            await self._read_on(None)
            self._found = in_order(self._found, self._query.order_by)
        else:
            await self._read_on(size)
        rows, self._found = self._found[:size], self._found[size:]
        self._given += len(rows)
        self.over = self._given >= self._query.limit or (self._read and not self._found)
        return rows

    @property
    def cut(self) -> bool:
        """Whether it is over by the limit alone, and there is more."""
        return self.over and (not self._read or bool(self._found))

    def _is_unordered(self) -> bool:
        """Whether the order is to be made here, of everything, before the first row is handed out."""
        if not self._query.order_by or self._read:
            return False
        return not self._crm.explain(self._query).ordered

    async def _read_on(self, size: int | None) -> None:
        """Read until there are ``size`` rows, or all."""
        empty = 0
        while not self._read and (size is None or len(self._found) < size):
            asked = PAGE if size is None or self._after is not None else min(PAGE, size)
            page = await self._crm.page(self._tenant, self._query, self._after, asked)
            self._looked += len(page.rows)
            self._found += [row for row in page.rows if matches(row, self._query.where)]
            self._read = page.after is None
            empty = 0 if page.rows else empty + 1
            if not self._read and (hash(page.after) in self._places or empty > MOST_EMPTY):
                raise QueryRefused(f"{self._name} does not come to an end of its pages.")
            self._after = page.after
            self._places.add(hash(page.after))
            if not self._read and self._looked > MOST_READ:
                raise QueryRefused(
                    f"{self._name} handed over {self._looked:,} rows of {self._query.object}: it cannot filter all of "
                    f"{words(self._query.where)[:200]}, or not order them.",
                    cure="Narrow it by what the vendor can filter by: await query.explain() shows that.",
                )

    @property
    def _name(self) -> str:
        return self._crm.explain(self._query).connector


async def rows_of(crm: CRM, tenant: str, query: Query) -> list[Fields]:
    """The rows that match, in order, up to the query's limit. Raises as `Reading` does."""
    reading = Reading(crm, tenant, query)
    found: list[Fields] = []
    while not reading.over:
        found += await reading.next()
    return found


def only(row: Fields, fields: Collection[str]) -> Fields:
    """A row with these fields and its id; all of it where none are named."""
    return {name: value for name, value in row.items() if name == "id" or name in fields} if fields else row
