"""Fields that a vendor calls by two names: webhooks by an id of its own, authors and most writes by a key.

The mirror (circuit.records) keeps such a field under its key, so that what a webhook brought and what we wrote can be
held against each other. Where an id stands in it, it came while its key was not known, or was written by the id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuit_script.connectors.connector import Fields
from circuit_script.effects.echoes import same

Twins = Mapping[str, str]
"""The key of each id."""
NO_TWINS: Twins = {}


@dataclass(frozen=True, slots=True)
class Named:
    """What arrived of a record, and what of it was stored and written by us, all under their keys. ``sure``: of two
    values that stood there under two names it is known which is the newer one. ``keep`` is what to keep of what
    arrived; ``twins`` are those that hold for it."""

    incoming: Fields
    stored: Fields | None
    written: Mapping[str, Any]
    sure: bool
    keep: Fields
    twins: Twins


def named(incoming: Fields, stored: Fields | None, written: Mapping[str, Any], twins: Twins) -> Named:
    """All of it as it is, where there are no twins."""
    if not twins:
        return Named(incoming, stored, written, True, incoming, NO_TWINS)
    found, odd = by_key(incoming, twins)
    if odd:  # a field of the vendor's own that is called as a custom one
        twins = {name: key for name, key in twins.items() if name not in odd}
    if stored is None:
        return Named(found, None, written, True, found, twins)
    known, ours, sure = known_by_key(stored, written, twins)
    return Named(found, known, ours, sure, healed(found, stored, twins), twins)


def by_key(fields: Mapping[str, Any], twins: Twins) -> tuple[Fields, list[str]]:
    """What one message says, under its keys; and the ids of those that say something else under their key: they stay as
    they are."""
    found, odd = dict(fields), []
    for name in fields.keys() & twins.keys():
        key, value = twins[name], found.pop(name)
        if found.get(key) is None:
            found[key] = value
        elif value is not None and not same(value, found[key]):
            found[name] = value
            odd.append(name)
    return found, odd


def known_by_key(
    stored: Mapping[str, Any], written: Mapping[str, Any], twins: Twins
) -> tuple[Fields, Mapping[str, Any], bool]:
    """What is stored, and what of it we wrote, under their keys; and whether it is sure which of two values is the
    newer one. A value that we wrote by the id is newer than one under the key that we did not."""
    known, odd = by_key(stored, twins)
    ours = _keys_first(written, twins)
    sure = True
    for name in odd:
        key, value = twins[name], known.pop(name)
        if name in written and same(written[name], value) and not (key in written and same(written[key], known[key])):
            known[key] = ours[key] = value
        else:
            sure = False
    for name in stored.keys() & twins.keys():
        key = twins[name]
        if stored[name] is not None and stored.get(key, name) is None and written.get(key, name) is None:
            known[key], sure = None, False  # we cleared it by its key
    return known, ours, sure


def by_both(fields: Fields, twins: Twins) -> Fields:
    """The fields as handlers see them: under their keys, and under their ids."""
    if not twins:
        return fields
    found = _keys_first(fields, twins)
    return found | {name: found[key] for name, key in twins.items() if key in found}


def _keys_first(fields: Mapping[str, Any], twins: Twins) -> Fields:
    """The fields under their keys; of two values, that which stood there."""
    found = {twins[name]: value for name, value in fields.items() if name in twins}
    return found | {name: value for name, value in fields.items() if name not in twins}


def healed(incoming: Fields, stored: Mapping[str, Any], twins: Twins) -> Fields:
    """What arrived, with nothing in place of the ids that the mirror still has of the fields that it says: the keys say
    it now."""
    left = (name for name in stored.keys() & twins.keys() if stored[name] is not None and name not in incoming)
    old = {name: None for name in left if twins[name] in incoming}
    return {**incoming, **old} if old else incoming
