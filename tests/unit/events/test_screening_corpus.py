"""What is read together hides no attack: those of the development corpus, each in a batch of harmless records."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from uuid import UUID

import pytest

from circuit_script.events.batch import Item
from circuit_script.events.queued import Queued
from circuit_script.events.screening import Screen, held_by
from circuit_script.events.wordless import is_wordless
from circuit_script.judgment import Action, JudgmentProtocol

SHARED = os.environ.get("CIRCUIT_SHARED")
CORPUS = Path(SHARED or "") / "corpora" / "injection" / "dev.jsonl"
NOTES = (
    "Called on Monday and asked for a quote for 12 rooms; the budget is around 20 thousand.",
    "Met at the trade fair in Waco, works with another supplier until October.",
    "The kitchen was installed in March, with two small complaints about the doors.",
)
MOST = 300

pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason="CIRCUIT_SHARED names no folder with corpora/injection")


def texts(label: int) -> list[str]:
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    found = [row["text"] for row in rows if int(row["label"]) == label and 20 < len(row["text"]) < 700]
    return random.Random(5).sample(found, MOST)


def item(nth: int, notes: str) -> Item:
    row = Queued(nth, 1, 0, 0, 0, 0, UUID(int=nth), None, None, "acme", "Contact", "afterInsert", f"c{nth}")
    record = {"id": f"c{nth}", "name": "Ann Stone", "city": "Waco", "notes": notes}
    return Item(row, record, record, None, {"source": "standard"}, echo=False)


def test_whoever_is_held_alone_is_held_among_others() -> None:
    protocol = JudgmentProtocol()
    attacks = [text for text in texts(1) if protocol.judge(text).action is Action.QUARANTINE]
    assert len(attacks) > MOST // 3
    screen = Screen(protocol)

    held = 0
    for n, attack in enumerate(attacks):
        batch = [item(place, f"{NOTES[(place + n) % 3]} {place}.{n}") for place in range(6)]
        batch[n % 6] = item(n % 6, attack)
        found = asyncio.run(screen.screened(batch))
        held += held_by(found[n % 6]) is not None

    assert held >= 0.99 * len(attacks)


def test_no_attack_is_left_out_as_wordless() -> None:
    assert [text for text in texts(1) if is_wordless(text)] == []
