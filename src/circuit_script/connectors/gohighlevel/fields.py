"""Custom fields of a location: their ids, keys and types, remembered for a while."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from circuit_script.connectors.api import Failed
from circuit_script.connectors.gohighlevel.asking import Asking, place
from circuit_script.connectors.gohighlevel.objects import JULY, KINDS, listed

FRESH = 300.0  # seconds
SOONEST = 5.0  # seconds after which it is asked again for a field that nobody knows
PATIENCE = 2.0  # seconds that an event waits for those of a location of which nothing is known
AGAIN = 60.0  # seconds after which events have them asked for again where that came to nothing
MOST = 1000  # locations
NUMBERS = frozenset({"NUMERICAL", "MONETORY"})
SEVERAL = frozenset({"CHECKBOX", "MULTIPLE_OPTIONS"})
FREE = frozenset({"TEXT", "LARGE_TEXT"})
TEXTS = FREE | {"SINGLE_OPTIONS", "RADIO", "PHONE"}
_OWN = {
    kind.model: frozenset({*kind.takes, *kind.keeps, *kind.renamed.values()})
    for kind in KINDS.values()
    if kind.model is not None
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Custom:
    """One custom field. ``key`` is without its model: "score" of "contact.score"."""

    id: str
    key: str
    type: str
    model: str


@dataclass(frozen=True, slots=True)
class Customs:
    """The custom fields of one location, found by id and, within their model, by key."""

    by_id: Mapping[str, Custom] = field(default_factory=dict)
    by_key: Mapping[tuple[str, str], Custom] = field(default_factory=dict)
    by_model: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    at: float = 0.0

    def find(self, model: str, name: str) -> Custom | None:
        """By its id, its key, or its whole key ("contact.score")."""
        if (found := self.by_id.get(name)) is not None:
            return found if found.model == model else None
        return self.by_key.get((model, name.removeprefix(f"{model}.")))

    def keys(self, model: str) -> dict[str, str]:
        return {each.id: each.key for each in self.by_id.values() if each.model == model}

    def twins(self, model: str) -> Mapping[str, str]:
        """As `keys`, without those that are called as another field is."""
        return self.by_model.get(model, {})


NONE = Customs()


class CustomFields:
    """Those of every tenant's location."""

    def __init__(self, asking: Asking, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._asking = asking
        self._clock = clock
        self._known: OrderedDict[str, tuple[str, Customs]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._in_vain: dict[str, float] = {}

    async def of(self, tenant: str, *wanted: tuple[str, str]) -> Customs:
        """All of them; asked for again when one that is ``wanted`` (model, name) is not there. Raises Failed."""
        location = await self._asking.location(tenant)
        known = self._known.get(tenant)
        now = self._clock()
        if known is not None and known[0] == location:
            age = now - known[1].at
            if age < SOONEST or (age < FRESH and all(known[1].find(*each) is not None for each in wanted)):
                return known[1]
        path = place("/locations/{location}/customFields", location=location)
        answer = await self._asking.ask(tenant, JULY, "GET", path, params={"model": "all"})
        made = customs_of(answer, now)
        self._known[tenant] = (location, made)
        self._known.move_to_end(tenant)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return made

    async def for_reading(self, tenant: str) -> Customs:
        """As `of`; none where the token may not see them: rows then have them by their ids alone."""
        try:
            return await self.of(tenant)
        except Failed as failed:
            if failed.code == "scope":
                return NONE
            raise

    async def at_hand(self, tenant: str) -> Customs:
        """Those that are remembered, however old, for events, which hardly wait: what is old is asked for beside them.
        NONE where nothing is known in time."""
        known = self._known.get(tenant)
        if known is None or self._clock() - known[1].at >= FRESH:
            asking = self._ask_beside(tenant)
            if known is None and asking is not None:
                await asyncio.wait([asking], timeout=PATIENCE)
                known = self._known.get(tenant)
        return NONE if known is None else known[1]

    def _ask_beside(self, tenant: str) -> asyncio.Task[None] | None:
        if self._clock() < self._in_vain.get(tenant, 0.0):
            return None
        found = self._asked.get(tenant)
        if found is None or found.done():
            found = self._asked[tenant] = asyncio.create_task(self._learn(tenant))
        return found

    async def _learn(self, tenant: str) -> None:
        try:
            await self.of(tenant)
        except Exception as error:  # whatever it is: events go on without
            self._in_vain[tenant] = self._clock() + AGAIN
            log.warning("gohighlevel.fields", tenant=tenant, error=str(error)[:200],
                        next="events have custom fields by their ids alone; asking again later")  # fmt: skip
        else:
            self._in_vain.pop(tenant, None)
        finally:
            self._asked.pop(tenant, None)


def customs_of(answer: Any, now: float) -> Customs:
    found = []
    for each in listed(answer, "customFields"):
        identifier, key = each.get("id"), each.get("fieldKey")
        if isinstance(identifier, str) and isinstance(key, str):
            model = str(each.get("model") or key.partition(".")[0])
            found.append(Custom(identifier, key.removeprefix(f"{model}."), str(each.get("dataType", "")), model))
    by_id = {one.id: one for one in found}
    called = Counter((one.model, one.key) for one in by_id.values())
    by_model: dict[str, dict[str, str]] = {}
    for one in by_id.values():
        alone = one.key and one.key not in by_id and called[one.model, one.key] == 1
        if alone and one.key not in _OWN.get(one.model, ()):
            by_model.setdefault(one.model, {})[one.id] = one.key
    return Customs(by_id, {(one.model, one.key): one for one in found}, by_model, now)


def written(custom: Custom, value: Any) -> dict[str, Any]:
    """The entry that writes a value. Empty text clears it; free text holds a list or a mapping as JSON. Raises
    ValueError."""
    if value is None:
        value = ""
    elif custom.type in NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            try:
                value = float(str(value))
            except ValueError:
                raise ValueError(f"{custom.key} is a number there, not {str(value)[:40]!r}") from None
    elif custom.type in SEVERAL:
        value = [text(each) for each in (value if isinstance(value, list | tuple) else [value])]
    elif isinstance(value, list | tuple | dict):
        if custom.type in FREE:
            value = json_text(value)
        elif custom.type in TEXTS:
            raise ValueError(f"{custom.key} is text there, not a {type(value).__name__}")
    else:
        value = text(value)
    return {"id": custom.id, "field_value": value}


def json_text(value: Any) -> str:
    """A list or a mapping as it stands in a field of text; nothing where it is empty."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""


def text(value: Any) -> str:
    """A scalar as text: true and false as JSON has them."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
