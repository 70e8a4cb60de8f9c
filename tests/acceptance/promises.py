"""What must hold after any accident: the database, the receiver of effects and the vendor tell one story."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from tests.acceptance.platform import Platform
from tests.acceptance.vendor import Load, Receiver

# One row and one effect for each event; step 2 of a contact that says so cannot be counted.
TALLY = """
from circuit_script import CircuitDB, CircuitTrigger, send_webhook, trigger


class Tally(CircuitTrigger):
    @trigger("Contact", ["afterInsert", "afterUpdate"], batch_size=50)
    async def count(self, context):
        for contact, event in zip(context.new_records, context.events):
            async with context.record(contact):
                row = {"contactId": contact["id"], "step": contact["step"], "event": event["id"]}
                await CircuitDB.insert("Tally", row)
                await send_webhook("hooks", row)
                if contact["step"] == 2 and contact.get("poison"):
                    raise ValueError("this step cannot be counted")
"""

ENDS = """
SELECT e.id, d.vendor_id, e.record, o.status, o.reason
FROM circuit.deliveries d
JOIN circuit.events e ON e.delivery = d.id
LEFT JOIN circuit.outcomes o ON o.delivery = d.id AND o.ordinal = e.ordinal AND o.status <> 'retry'
"""
TALLIES = """
SELECT (data ->> 'event')::bigint, data ->> 'contactId', (data ->> 'step')::int
FROM circuit.records WHERE object = 'Tally' ORDER BY created_at, id
"""
DEAD = """
SELECT e.id, l.reason FROM circuit.dead_letters l
JOIN circuit.events e ON e.delivery = l.delivery AND e.ordinal = l.ordinal WHERE l.kind = 'event'
"""


def hooks(receiver: Receiver) -> str:
    """The lines of circuit.toml that TALLY needs."""
    return f'[addresses.hooks]\nurl = "{receiver.address}/"\n'


def kept(platform: Platform, load: Load, receiver: Receiver | None, *, poisoned: Collection[str] = ()) -> None:
    """Nothing lost, doubled or overtaken, and no effect without success."""
    ends = platform.rows(ENDS)
    in_ledger = Counter(vendor_id for _, vendor_id, *_ in ends)
    lost = [sent.vendor_id for sent, _ in load.acknowledged if not in_ledger[sent.vendor_id]]
    assert not lost, f"{len(lost)} acknowledged deliveries are not in the ledger: {lost[:5]}"
    twice = [vendor_id for vendor_id, count in in_ledger.items() if count > 1]
    assert not twice, f"{len(twice)} deliveries have more than one event or end: {twice[:5]}"

    unfinished = [event for event, _, _, status, _ in ends if status not in ("succeeded", "dead")]
    assert not unfinished, f"{len(unfinished)} events have no end: {unfinished[:5]}"
    succeeded = {event for event, _, _, status, _ in ends if status == "succeeded"}
    reasons = dict(platform.rows(DEAD))
    assert set(reasons) == {event for event, *_ in ends} - succeeded, "a dead event has a dead letter, and no other"
    assert all(reasons.values()), f"a dead letter has no reason: {reasons}"
    dead = {record for _, _, record, status, _ in ends if status == "dead"}
    assert dead >= set(poisoned), f"{set(poisoned) - dead} should have died"

    tallies = platform.rows(TALLIES)
    counted = Counter(event for event, _, _ in tallies)
    assert set(counted) == succeeded, _difference(set(counted), succeeded)
    assert max(counted.values()) == 1, f"counted twice: {[event for event, n in counted.items() if n > 1][:5]}"
    in_order(tallies)
    if receiver is not None:
        effects_came(receiver, succeeded)
    assert platform.settled()


def in_order(tallies: list[tuple[int, str, int]]) -> None:
    """Per contact, rows stand in the order of its events."""
    steps: defaultdict[str, list[int]] = defaultdict(list)
    for _, contact, step in tallies:
        steps[contact].append(step)
    overtaken = {contact: found for contact, found in steps.items() if found != sorted(found)}
    assert not overtaken, f"{len(overtaken)} contacts out of order: {dict(list(overtaken.items())[:3])}"


def effects_came(receiver: Receiver, succeeded: Collection[int]) -> None:
    """The receiver saw every effect, never under two keys, and none of an event that did not succeed."""
    assert set(receiver.keys) == set(succeeded), _difference(set(receiver.keys), set(succeeded))
    forked = {event: keys for event, keys in receiver.keys.items() if len(keys) > 1}
    assert not forked, f"one event under several idempotency keys: {dict(list(forked.items())[:3])}"


def _difference(found: set[int], wanted: set[int]) -> str:
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    return f"{len(missing)} missing {missing[:5]}, {len(extra)} without success {extra[:5]}"
