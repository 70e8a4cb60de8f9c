"""Verdicts that a person found wrong, kept in the app's folder: what the next model may learn from.

One JSON object a line, in the shape of a training corpus: ``text``, ``label`` (1 for an attack), ``kind``, ``source``,
``lang``; and beside it the ``score`` that was wrong, the ``reason`` and when.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from circuit_script.clock import now
from circuit_script.errors import FeedbackRefused
from circuit_script.judgment.residue import CLASSES, residue

FILE = Path("judgment") / "feedback.jsonl"
KIND = "feedback"


@dataclass(frozen=True, slots=True)
class Feedback:
    """A text with what it is in truth. ``lang`` is "und" where nobody has said."""

    text: str
    label: int
    score: float
    reason: str
    at: str
    source: str = KIND
    kind: str = KIND
    lang: str = "und"


def keep(folder: Path, text: str, *, attack: bool, score: float, reason: str = "", source: str = "") -> Path:
    """Append it. The text is kept as it is, so one that holds a secret is refused. Raises FeedbackRefused."""
    if not text.strip():
        raise FeedbackRefused("There is no text.")
    secrets = {each.pattern for each in residue(text) if CLASSES.get(each.pattern) == "secret"}
    if secrets:
        named = ", ".join(sorted(each.rpartition(".")[2] for each in secrets))
        raise FeedbackRefused(f"It holds a secret ({named}).", cure="Put something else in its place, and try again.")
    made = Feedback(text, int(attack), round(score, 6), reason, now().isoformat(), source or KIND)
    path = folder / FILE
    try:
        path.parent.mkdir(exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(file, "ab") as out:
            out.write((json.dumps(asdict(made)) + "\n").encode("ascii"))  # half a character is written as an escape
    except OSError as error:
        raise FeedbackRefused(f"{path} cannot be written: {error.strerror}.") from None
    return path


def kept(folder: Path) -> list[Feedback]:
    """All of it, the oldest first. Raises FeedbackRefused for a line that is none."""
    path = folder / FILE
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FeedbackRefused(f"{path} cannot be read: {error.strerror}.") from None
    found: list[Feedback] = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Feedback(**json.loads(line)))
        except (ValueError, TypeError, RecursionError):
            raise FeedbackRefused(f"{path}, line {number}, is not feedback.", cure="Mend or remove the line.") from None
    return found
