"""What the model learns from: the corpus, sentences of our own, and attacks put into the middle of harmless texts."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.judgment.grammar import sentences

HERE = Path(__file__).parent
WEAK = ("bipia-composed", "tensor-trust/hijacking")  # many of their attacks are no attacks when read alone
MADE = ("own-obfuscated", "own-encoded-benign", "own-embedded")  # made of texts of other sources
PART, DEALT = "#", 6
FEEDBACK = "feedback"  # what people found wrong: as many files of `circuit-script judge --wrong` as there are
CARRIERS = frozenset(
    [
        "banking77",
        "sms-spam-collection",
        "modeldata/small_fine_foods",
        "taskmaster4",
        "bipia-contexts",
        "library-docs(mirror)",
        "clinc150",
        "wildguard-benign(PIGuard)",
        "alpaca-seed",
        "bipia-code",
        "django-locale",
        "own-business",
        "own-docs",
        "own-mail",
        "own-pages",
        "own-tools",
    ]
)
FOLDS = [
    ["neuralchemy", "bipia-contexts", "bipia-composed(weak-label)", "bipia-code"],
    ["prompt-armor/satml-ctf-2024", "sms-spam-collection"],
    ["oubliette-shield", "cyberseceval/frr"],
    ["cyberseceval/prompt_injection", "clinc150"],
    ["deepset/prompt-injections", "banking77"],
    ["prompt-armor/safeguard/injection", "crm-json(own wrap)", "modeldata/small_fine_foods"],
    ["prompt-armor/lakera/gandalf", "prompt-armor/protectai/validation", "alpaca-seed", "taskmaster4"],
    ["injecagent", "django-locale"],
    ["tensor-trust/extraction", "tensor-trust/hijacking", "wildguard-benign(PIGuard)"],
    ["self-reminder-data", "compass-ctf", "library-docs(mirror)", *MADE, FEEDBACK],
]
FOLD = {source: number for number, fold in enumerate(FOLDS) for source in fold}


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    attack: bool
    source: str
    kind: str = ""


def corpus(folder: Path) -> list[Text]:
    """The texts of ``dev.jsonl``, and of each ``feedback*.jsonl`` beside it."""
    found = [Text(row["text"], bool(row["label"]), row["source"], row["kind"]) for row in _rows(folder / "dev.jsonl")]
    for path in sorted(folder.glob("feedback*.jsonl")):
        found += [Text(row["text"], bool(row["label"]), FEEDBACK, FEEDBACK) for row in _rows(path)]
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def own(test: bool) -> list[Text]:
    """Our harmless sentences full of words that attacks use: every second is for tests."""
    lines = (HERE / "sentences" / "benign.txt").read_text("utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    return [Text(line, False, "own-triggers", "trigger words") for line in kept[int(test) :: 2]]


def written() -> list[Text]:
    """The texts that we wrote, attacks and harmless ones of the same carriers and words. A file is a source; its lines
    are dealt to DEALT parts of it, so that a word counts as known to several where several of its texts have it."""
    found = []
    for folder, attack in (("attacks", True), ("harmless", False)):
        for path in sorted((HERE / "sentences" / folder).glob("*.txt")):
            lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("# ")]
            found += [
                Text(_unescaped(line), attack, f"own-{path.stem}{PART}{nth % DEALT}", "written")
                for nth, line in enumerate(lines)
            ]
    return found


def _unescaped(line: str) -> str:
    """A text as one line has it: ``\\n`` stands for the end of a line, two backslashes for one."""
    return "\\".join(part.replace("\\n", "\n") for part in line.split("\\\\"))


def grammar(number: int) -> list[Text]:
    return [
        Text(line, attack, "own-grammar", "grammar")
        for attack in (True, False)
        for line in sentences(attack, number, 11)
    ]


def wrapped(rng: random.Random, inner: str, carrier: str) -> str:
    """A text somewhere in another one, as such things arrive: JSON, e-mail, HTML, chat."""
    cut = rng.choice([0, len(carrier), rng.randrange(len(carrier) + 1)])
    while 0 < cut < len(carrier) and carrier[cut - 1] not in " \n.":
        cut -= 1
    separator = rng.choice([" ", "\n", "\n\n", ". ", " - "])
    text = separator.join(part for part in (carrier[:cut].strip(), inner, carrier[cut:].strip()) if part)
    match rng.randrange(8):
        case 0 | 1:
            shape = {
                "event": rng.choice(["contact.updated", "note.added", "ticket.created"]),
                "id": rng.randrange(9999),
                rng.choice(["note", "body", "text", "message"]): text,
            }
            return json.dumps(shape, ensure_ascii=False)
        case 2:
            who, about = rng.choice(["anna", "j.smith", "office"]), rng.choice(["Order", "Your question", "Invoice"])
            return f"From: {who}@shop.example\nSubject: {about}\n\n{text}"
        case 3:
            return f"<div>{text}</div>"
        case 4:
            return f"user: {text}\nassistant: OK."
    return text


def embedded(texts: Sequence[Text], number: int, seed: int) -> list[Text]:
    """Attacks in harmless texts, and as often harmless requests in harmless texts; every source as often as another."""
    rng = random.Random(seed)

    def by_source(kept: list[Text]) -> list[list[Text]]:
        groups = defaultdict(list)
        for each in kept:
            groups[each.source.partition(PART)[0]].append(each)
        return [groups[name] for name in sorted(groups)]

    good = [each for each in texts if not each.source.startswith((*WEAK, *MADE))]
    attacks = by_source([each for each in good if each.attack and 15 < len(each.text) < 500])
    harmless = by_source([each for each in good if not each.attack and 10 < len(each.text) < 500])
    carriers = by_source([each for each in good if each.source.partition(PART)[0] in CARRIERS]) or harmless
    made = []
    for turn in range(number):
        carrier = rng.choice(rng.choice(carriers)).text
        if len(carrier) > 1500:
            start = rng.randrange(len(carrier) - 1200)
            carrier = carrier[start : start + 1200]
        inner = rng.choice(rng.choice(harmless if turn % 2 else attacks))
        made.append(
            Text(
                wrapped(rng, inner.text.strip(), carrier),
                inner.attack,
                f"in {inner.source.partition(PART)[0]}",
                "embedded",
            )
        )
    return made


def shingles(plain: str, words: int = 6) -> set[str]:
    found = re.findall(r"\w+", plain)
    return {" ".join(found[at : at + words]) for at in range(max(1, len(found) - words + 1))}
