"""Answers of sources: of this process, else of the database, else of the source, which one batch asks for all.

Who finds that another batch, in this process or elsewhere, asks for the same now waits for that one's answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from circuit_script.clock import uuid7
from circuit_script.enrichment.asking import LATER, NotAnswered
from circuit_script.enrichment.memory import Memory
from circuit_script.enrichment.store import Kept, Shelf, Store, Wanted
from circuit_script.errors import DatabaseUnavailable

PATIENCE = 120.0  # seconds that a batch waits for the answers of another at most
SPARE = 1.0  # seconds that an execution still needs when it has waited
LOOKS = (0.02, 0.25)  # seconds between two looks, the first and the longest

Loaded = Kept | str
Load = Callable[[Sequence[bytes]], AsyncGenerator[Mapping[bytes, Loaded], None]]
_MISSED = object()
_CHUNK = 1000  # answers that are kept by one statement


@dataclass(slots=True)
class Answers:
    """``kept`` by key, and for the other keys ``reasons``. ``asked`` are those that were asked for outside."""

    kept: dict[bytes, Kept] = field(default_factory=dict)
    reasons: dict[bytes, str] = field(default_factory=dict)
    asked: int = 0


def kept(data: Any, seconds: float | None) -> Kept:
    """An answer that has come now and counts for so long; None is for ever."""
    return Kept(data, time.time(), seconds)


class Cache:
    """Without a ``store`` this process alone remembers, and nobody waits for anybody."""

    def __init__(self, store: Store | None, remembered: int) -> None:
        self._store = store
        self._memory: Memory[tuple[str, str, bytes]] = Memory(remembered)

    async def fetch(
        self,
        shelf: Shelf,
        wanted: Mapping[bytes, Wanted],
        load: Load,
        *,
        left: Callable[[], float],
        lease: float,
        most: int | None = None,
        too_many: str = "",
    ) -> Answers:
        """An answer or a reason for each key.

        ``load`` asks for the keys it is given, and yields answers, or reasons, as they come; what it does not name has
        none. At most ``most`` keys are loaded, the first ones; the reason of the rest is ``too_many``. A claim lasts
        ``lease`` seconds. Raises DatabaseUnavailable, and what ``load`` raises but NotAnswered.
        """
        answers = Answers()
        missing = self._look_here(shelf, list(wanted), answers)
        if missing and self._store is not None:
            missing = await self._look_there(self._store, shelf, missing, wanted, answers)
        if most is not None and len(missing) > most:
            answers.reasons.update(dict.fromkeys(missing[most:], too_many))
            missing = missing[:most]
        if not missing:
            return answers
        if self._store is None:
            await self._load(shelf, missing, wanted, load, answers, None, uuid7())
            return answers
        await self._load_once(self._store, shelf, missing, wanted, load, answers, left, lease)
        return answers

    def _look_here(self, shelf: Shelf, keys: list[bytes], answers: Answers) -> list[bytes]:
        if shelf.tenant and self._store is not None:  # it may have been forgotten since
            return keys
        missing = []
        for key in keys:
            found = self._memory.get((shelf.tenant, shelf.source, key), _MISSED)
            if found is _MISSED:
                missing.append(key)
            else:
                answers.kept[key] = found
        return missing

    async def _look_there(
        self, store: Store, shelf: Shelf, keys: list[bytes], wanted: Mapping[bytes, Wanted], answers: Answers
    ) -> list[bytes]:
        found = await store.read(shelf, keys)
        answers.kept.update(found)
        if shelf.tenant:
            others = {
                key: wanted[key].record
                for key, each in found.items()
                if wanted[key].record and wanted[key].record not in each.records
            }
            if others:
                await store.also_about(shelf, others)
        else:
            self._remember(shelf, found)
        return [key for key in keys if key not in found]

    async def _load_once(
        self,
        store: Store,
        shelf: Shelf,
        missing: list[bytes],
        wanted: Mapping[bytes, Wanted],
        load: Load,
        answers: Answers,
        left: Callable[[], float],
        lease: float,
    ) -> None:
        by, ends, pause = uuid7(), time.monotonic() + PATIENCE, LOOKS[0]
        while missing:
            mine = await store.claim(shelf, missing, by, lease)
            if mine:  # nothing is waited for while others may wait for these
                await self._load(shelf, [key for key in missing if key in mine], wanted, load, answers, store, by)
                missing = [key for key in missing if key not in mine]
                if not missing:
                    return
            if time.monotonic() >= ends or left() <= SPARE + pause:
                answers.reasons.update(dict.fromkeys(missing, f"{LATER}: another batch asks for it now"))
                return
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(LOOKS[1], pause * 1.5)
            missing = await self._look_there(store, shelf, missing, wanted, answers)

    async def _load(
        self,
        shelf: Shelf,
        keys: Sequence[bytes],
        wanted: Mapping[bytes, Wanted],
        load: Load,
        answers: Answers,
        store: Store | None,
        by: UUID,
    ) -> None:
        """Ask for these, which are ours, and keep what comes at once: it may have cost something."""
        open_ = dict.fromkeys(keys)
        answers.asked += len(keys)
        why = f"{LATER}: it was not asked for"
        try:
            async with aclosing(load(keys)) as batches:
                async for batch in batches:
                    got = {key: each for key, each in batch.items() if key in open_}
                    new = {key: each for key, each in got.items() if isinstance(each, Kept)}
                    answers.kept.update(new)
                    answers.reasons.update({key: each for key, each in got.items() if isinstance(each, str)})
                    if new and store is not None:
                        for some in _chunks(new):
                            await store.keep(shelf, some, wanted, by)
                    if not shelf.tenant or store is None:
                        self._remember(shelf, new)
                    for key in new:
                        del open_[key]
        except NotAnswered as error:
            why = error.reason
        finally:
            if open_ and store is not None:
                with suppress(DatabaseUnavailable):  # the leases end by themselves
                    await store.let_go(shelf, list(open_), by)
        for key in open_:
            answers.reasons.setdefault(key, why)

    async def known(self, shelf: Shelf, keys: Sequence[bytes]) -> dict[bytes, Any]:
        """What is known of these, without asking anybody. Raises DatabaseUnavailable."""
        if self._store is not None:
            return {key: each.data for key, each in (await self._store.read(shelf, keys)).items()}
        found = {key: self._memory.get((shelf.tenant, shelf.source, key)) for key in keys}
        return {key: each.data for key, each in found.items() if each is not None}

    async def put(self, shelf: Shelf, key: bytes, answer: Kept, whom: Wanted) -> None:
        """Keep an answer that nobody claims. Raises DatabaseUnavailable."""
        if self._store is None:
            self._remember(shelf, {key: answer})
        else:
            await self._store.put(shelf, key, answer, whom)

    async def drop(self, shelf: Shelf, keys: Sequence[bytes]) -> None:
        """Forget answers that turned out to be wrong. Raises DatabaseUnavailable."""
        if self._store is not None:
            await self._store.drop(shelf, keys)
        for key in keys:
            self._memory.drop((shelf.tenant, shelf.source, key))

    def _remember(self, shelf: Shelf, found: Mapping[bytes, Kept]) -> None:
        for key, each in found.items():
            self._memory.put((shelf.tenant, shelf.source, key), each, each.seconds)


def _chunks(answers: Mapping[bytes, Kept]) -> Iterator[Mapping[bytes, Kept]]:
    keys = list(answers)
    for start in range(0, len(keys), _CHUNK):
        yield {key: answers[key] for key in keys[start : start + _CHUNK]}
