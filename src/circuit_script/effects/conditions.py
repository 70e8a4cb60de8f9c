"""What an outcome asks beside its settlement: records as they were read, and effects that use what others make.

Few outcomes have any of it, and those that have none pay nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from circuit_script.db.binary_arrays import Packed, bigints, texts, uuids
from circuit_script.effects import answered
from circuit_script.effects.homed import COLUMNS, Homed
from circuit_script.effects.unit import Send, Write
from circuit_script.errors import VersionConflict

CHANGED = "CS004"  # SQLSTATE: a record was changed since it was read

_CHECKS = (texts, texts, texts, bigints)
_KEYS = (texts, texts, texts)
_REFERENCES = (uuids, uuids)
_VERSIONS = (uuids, texts)
_TRACES = (uuids, uuids)
_HOME = len(COLUMNS) + len(_KEYS) + 1
_UNCHANGED = len(_CHECKS) + len(_KEYS)
_REFER = len(_REFERENCES) + len(_VERSIONS)

Key = tuple[str, str, str]


class Conditions:
    """Collects what settlements ask for, and makes the statement that asks it. ``settle`` is the call that settles,
    with placeholders up to ``parameters``."""

    def __init__(self, settle: str, parameters: int) -> None:
        self._settle = settle
        self._next = parameters + 1
        self._where: list[str] = []
        self._then: list[str] = []
        self.values: list[Packed] = []

    def answers(self, calls: Sequence[tuple[UUID, str, int, answered.Call]]) -> None:
        """These requests are answered by it."""
        if calls:
            values = answered.parameters(calls)
            self._where.append(answered.condition(self._next))
            self._add(values)

    def checks(self, writes: Sequence[tuple[str, Write]], touched: Sequence[Key]) -> None:
        """Writes, each with its tenant, of which some are for one version of their record only; ``touched`` are the
        keys of all records that the outcome changes."""
        rows = [
            (tenant, each.object, each.id, each.if_version) for tenant, each in writes if each.if_version is not None
        ]
        if rows:
            self._where.append(f"circuit.unchanged({self._places(_UNCHANGED)})")
            self._add([*_packed(list(dict.fromkeys(rows)), _CHECKS), *_packed(sorted(touched), _KEYS)])

    def homes(self, homed: Homed, rows: Sequence[tuple[Any, ...]], touched: Sequence[Key]) -> None:
        """Writes of records that live outside, encoded as COLUMNS; ``touched`` as above."""
        needs = sorted({need for _, need in homed.uses})
        if rows:
            self._where.append(f"circuit.home({self._places(_HOME)})")
            self._add([*_packed(rows, COLUMNS), *_packed(sorted(touched), _KEYS), uuids(needs)])
        if homed.uses:
            self._then.append(f"circuit.refer_home({self._places(len(_REFERENCES))})")
            self._add(_packed(homed.uses, _REFERENCES))

    def refers(self, sends: Sequence[Send]) -> None:
        """Effects of which some use the ids that others make, or are for one version of their record only."""
        needs = [(each.id, need) for each in sends for need in each.needs]
        versions = [(each.id, each.if_version) for each in sends if each.if_version is not None]
        if needs or versions:
            self._then.append(f"circuit.refer({self._places(_REFER)})")
            self._add([*_packed(needs, _REFERENCES), *_packed(versions, _VERSIONS)])

    def traces(self, effects: Sequence[tuple[UUID, UUID]]) -> None:
        """Effects that go on with another trace than that of their execution."""
        if effects:
            self._then.append(f"circuit.trace_effects({self._places(len(_TRACES))})")
            self._add(_packed(effects, _TRACES))

    @property
    def statement(self) -> str:
        what = f"CASE WHEN {self._settle} THEN {' AND '.join(self._then)} END" if self._then else self._settle
        return f"SELECT {what}" + (f" WHERE {' AND '.join(self._where)}" if self._where else "")

    def _places(self, number: int) -> str:
        return ", ".join(f"${n}" for n in range(self._next, self._next + number))

    def _add(self, values: Sequence[Packed]) -> None:
        self.values += values
        self._next += len(values)


def conflict_of(detail: str | None) -> VersionConflict:
    """The error that the database's means."""
    return VersionConflict([(object_, identifier) for object_, identifier in msgspec.json.decode(detail or "[]")])


def _packed(rows: Sequence[tuple[Any, ...]], packers: Sequence[Callable[[list[Any]], Packed]]) -> list[Packed]:
    columns = zip(*rows, strict=True) if rows else [()] * len(packers)
    return [pack(list(column)) for pack, column in zip(packers, columns, strict=True)]
