"""Reads one table of a profile's TOML strictly: every key is typed, none is left over, errors name the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from circuit_script.agents.virtual_lpr.profile import ProfileError, Steps


class Section:
    """One table. Each read marks its key; ``done`` refuses what nobody asked for."""

    def __init__(self, table: object, path: str) -> None:
        if not isinstance(table, Mapping):
            raise ProfileError(f"{path}: must be a table, not {table!r}")
        self._table: Mapping[str, Any] = table
        self._read: set[str] = set()
        self.path = path

    def names(self) -> list[str]:
        return list(self._table)

    def wrong(self, key: str, what: str) -> ProfileError:
        return ProfileError(f"{self.path}.{key}: must be {what}, not {self._table.get(key)!r}")

    def raw(self, key: str) -> Any:
        if key not in self._table:
            raise ProfileError(f"{self.path}.{key}: is missing")
        self._read.add(key)
        return self._table[key]

    def section(self, key: str) -> Section:
        return Section(self.raw(key), f"{self.path}.{key}")

    def number(self, key: str, most: float = math.inf) -> float:
        value = self.raw(key)
        if not _is_number(value) or not 0 <= value <= most:
            limit = "" if most == math.inf else f" up to {most:g}"
            raise self.wrong(key, f"a number from 0{limit}")
        return float(value)

    def whole(self, key: str) -> int:
        value = self.raw(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(key, "a whole number from 0")
        return value

    def text(self, key: str) -> str:
        value = self.raw(key)
        if not isinstance(value, str):
            raise self.wrong(key, "text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.raw(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def words(self, key: str) -> frozenset[str]:
        return frozenset(plain(word) for word in self.texts(key))

    def pair(self, key: str) -> tuple[float, float]:
        value = self.raw(key)
        if not _is_pair(value):
            raise self.wrong(key, "a pair of numbers")
        return float(value[0]), float(value[1])

    def steps(self, key: str, cap: float, *, rising: bool) -> Steps:
        """A staircase: bounds strictly up (``rising``) or down, points strictly down and within the cap."""
        value = self.raw(key)
        if not isinstance(value, list) or not value or not all(_is_pair(pair) for pair in value):
            raise self.wrong(key, "a list of pairs [bound, points]")
        steps = tuple((float(bound), float(points)) for bound, points in value)
        for (bound, points), (next_bound, next_points) in pairwise(steps):
            if (next_bound > bound) is not rising or next_bound == bound or next_points >= points:
                raise self.wrong(key, f"a staircase with {'rising' if rising else 'falling'} bounds and falling points")
        if steps[0][1] > cap:
            raise self.wrong(key, f"at most its cap of {cap:g} points")
        return steps

    def done(self) -> None:
        if extra := sorted(set(self._table) - self._read):
            raise ProfileError(f"{self.path}.{extra[0]}: is not known here")


def check_sum(where: str, what: str, caps: tuple[float, ...], must: float) -> None:
    """Refuses caps that do not add up to what they must, and shows the sum."""
    if abs(sum(caps) - must) > 1e-9:
        terms = " + ".join(f"{cap:g}" for cap in caps)
        raise ProfileError(f"{where}: caps of {what} are {terms} = {sum(caps):g}, but must add up to {must:g}")


def plain(text: str) -> str:
    """Text as it is compared: lower case, one space between words."""
    return " ".join(text.casefold().split())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(item) for item in value)
