"""Rows of what is paused: they are not in memory. Kept is where in the queue each thing paused begins."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

AsideKey = tuple[int, str, int | None]  # handler, tenant; of a paused record also its order key


class Aside:
    """The first row that was put aside, by lane, of each trigger and tenant, and of each order key of a paused record.

    As long as something of a key is aside, what comes after it stays aside, too: it is read again in its order.
    """

    def __init__(self) -> None:
        self._firsts: dict[AsideKey, dict[int, int]] = {}
        self._returning: dict[AsideKey, None] = {}

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def has(self, key: AsideKey, lane: int, id_: int) -> bool:
        """Whether a row of this key comes after one that is aside."""
        firsts = self._firsts.get(key)
        return firsts is not None and id_ >= firsts.get(lane, id_ + 1)

    def put(self, key: AsideKey, lane: int, first: int) -> None:
        """From this row on, the lane is to be read again for this key."""
        firsts = self._firsts.setdefault(key, {})
        firsts[lane] = min(first, firsts.get(lane, first))

    def __iter__(self) -> Iterator[AsideKey]:
        return iter(self._firsts)

    def bring_back(self, keys: Iterable[AsideKey]) -> None:
        """These may be read again."""
        self._returning.update(dict.fromkeys(keys))

    def returning(self, most: int) -> list[AsideKey]:
        """Those to be read again, in their order."""
        gone = [key for key in self._returning if key not in self._firsts]
        for key in gone:
            del self._returning[key]
        return list(self._returning)[:most]

    def first(self, key: AsideKey) -> int:
        """Where reading it again begins."""
        return min(self._firsts[key].values())

    def take(self, key: AsideKey) -> Mapping[int, int]:
        """It is about to be offered again."""
        self._returning.pop(key, None)
        return self._firsts.pop(key)

    def leave(self, key: AsideKey, firsts: Mapping[int, int], after: int) -> None:
        """There is more of it than was read up to ``after``: the rest comes next."""
        for lane, first in firsts.items():
            self.put(key, lane, max(first, after))
        self._returning[key] = None

    def drop(self, lanes: Collection[int]) -> None:
        """These lanes are another worker's."""
        for key, firsts in list(self._firsts.items()):
            for lane in [lane for lane in firsts if lane in lanes]:
                del firsts[lane]
            if not firsts:
                del self._firsts[key]

    def low(self) -> Iterator[tuple[int, int]]:
        """The first row of each lane and key."""
        for firsts in self._firsts.values():
            yield from firsts.items()
