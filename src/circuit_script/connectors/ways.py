"""Effects that a vendor is asked for in several ways: those of a way go together, and each gets its own result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

from circuit_script.connectors.connector import Delivery, Effect, Refused
from circuit_script.errors import RequestRefused

Way = TypeVar("Way", bound=Hashable)
Item = TypeVar("Item")


async def deliver_by_way(
    effects: Sequence[Effect],
    way_of: Callable[[Effect], tuple[Way, Item]],
    write: Callable[[Way, list[Item]], Awaitable[Sequence[Delivery]]],
) -> list[Delivery]:
    """The results of ``effects``, parallel to them. ``way_of`` raises RequestRefused for one that its vendor cannot be
    asked: that one alone is refused. ``write`` carries what goes one way, and says what became of each."""
    results: dict[int, Delivery] = {}
    ways: dict[Way, list[tuple[int, Item]]] = {}
    for place, effect in enumerate(effects):
        try:
            way, item = way_of(effect)
        except RequestRefused as error:
            results[place] = Refused(f"{error.detail} {error.cure}".strip())
        else:
            ways.setdefault(way, []).append((place, item))
    for way, listed in ways.items():
        found = await write(way, [item for _, item in listed])
        results |= {place: result for (place, _), result in zip(listed, found, strict=True)}
    return [results[place] for place in range(len(effects))]
