"""The records of a batch, which tell the parent which of them is being worked on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, SupportsIndex, overload

from circuit_script.execution.protocol import NOBODY


class Record(dict[str, Any]):
    """One record: a dict of its fields. ``place`` is its position in the batch; ``version``, of one that CircuitDB
    read, is what ``if_version`` compares."""

    __slots__ = ("place", "version")
    place: int
    version: int

    @property
    def id(self) -> Any:
        """The record's id at its vendor."""
        return self.get("id")


class Records(list[Record]):
    """The records of a batch. Who iterates it, or takes one out, tells the parent which record is being worked on."""

    __slots__ = ("_all", "_word")

    def __init__(self, rows: list[dict[str, Any]], word: memoryview) -> None:
        super().__init__(map(Record, rows))
        for place, record in enumerate(super().__iter__()):
            record.place = place
        self._word = word
        self._all: list[Record] | None = None  # where some were left out

    def leave_out(self, places: Collection[int]) -> None:
        """Take these out of the list; the others keep their places in the batch."""
        self._all = self._all or list(super().__iter__())
        self[:] = [record for record in self._all if record.place not in places]

    def at(self, place: int) -> Record:
        """The record at this place of the batch."""
        return super().__getitem__(place) if self._all is None else self._all[place]

    def places(self) -> list[int]:
        """The places of the records in the list."""
        return [record.place for record in super().__iter__()]

    def __iter__(self) -> Iterator[Record]:
        word = self._word
        for record in super().__iter__():
            word[0] = record.place
            yield record
        word[0] = NOBODY

    @overload
    def __getitem__(self, key: SupportsIndex) -> Record: ...
    @overload
    def __getitem__(self, key: slice) -> list[Record]: ...
    def __getitem__(self, key: SupportsIndex | slice) -> Record | list[Record]:
        found = super().__getitem__(key)
        if isinstance(found, Record):
            self._word[0] = found.place
        return found


def placed(row: dict[str, Any], place: int) -> Record:
    """A record of the batch at this place that is not in its ``Records``: an earlier state of it."""
    record = Record(row)
    record.place = place
    return record
