"""Coalescing: of the waiting updates of one record only the newest runs, and those before it leave with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from circuit_script.effects.settle import Arrived, Settled
from circuit_script.effects.twins import by_both
from circuit_script.events.backlog import Queued
from circuit_script.events.batch import Item, Loader
from circuit_script.events.verdicts import RecordEnd, RetryPolicy, settle_row

NO_POLICY = RetryPolicy(1, 0.0, 0.0)


async def load(loader: Loader, rows: Sequence[Queued]) -> tuple[list[Item], dict[int, str]]:
    """What these rows bring, each with the updates that it stands for; or the places of those that cannot be read.

    An older update that cannot be read any more leaves with its newest all the same.
    """
    unread: set[int] = set()
    while True:
        several = [[*(each for each in row.absorbed if each.id not in unread), row] for row in rows]
        flat = [each for group in several for each in group]
        items, unreadable = await loader.load(flat)
        own = {id(row): place for place, row in enumerate(rows)}
        if broken := {own[id(flat[n])]: why for n, why in unreadable.items() if id(flat[n]) in own}:
            return [], broken
        if not unreadable:
            break
        unread |= {flat[place].id for place in unreadable}
    found = iter(items)
    return [folded([next(found) for _ in group]) for group in several], {}


def folded(items: Sequence[Item]) -> Item:
    """The newest of these updates of one record, the oldest first, with what the others brought: its ``old`` is the
    state before the first of them."""
    newest, first = items[-1], items[0]
    if len(items) == 1:
        return replace(newest, old=newest.row.before) if newest.row.before is not None else newest
    incoming = {name: value for item in items for name, value in item.incoming.items()}
    echo = all(item.echo for item in items)
    return replace(
        newest,
        incoming=incoming,
        record=by_both({**newest.record, **incoming}, newest.twins),
        old=first.old if newest.row.before is None else newest.row.before,
        echo=echo,
        depth=newest.depth if echo else newest.row.depth,
        older=tuple(items[:-1]),
    )


def superseded(rows: Iterable[Queued], moment: datetime) -> list[Settled]:
    """The end of the older updates that these rows stand for."""
    return [
        settle_row(each, RecordEnd(f"a newer update came: event {row.id}", cancelled=True), NO_POLICY, moment)
        for row in rows
        for each in row.absorbed
    ]


def brought_before(item: Item) -> Arrived | None:
    """What the older updates brought, where their newest stays in the queue; None where there are none."""
    if not item.older:
        return None
    last = item.older[-1].row
    incoming = {name: value for each in item.older for name, value in each.incoming.items()}
    return Arrived(last.object, last.record, incoming, last.arrived, False)


def forget(rows: Iterable[Queued], settled: Iterable[Settled], olds: Iterable[Item] = ()) -> None:
    """After a commit: rows no longer stand for older updates that have left."""
    gone = {(each.id, each.handler) for each in settled}
    for item in olds:
        if item.older and (item.older[0].row.id, item.row.handler) in gone:
            item.row.before = item.old
    for row in rows:
        if row.absorbed:
            row.absorbed = [each for each in row.absorbed if (each.id, each.handler) not in gone]
