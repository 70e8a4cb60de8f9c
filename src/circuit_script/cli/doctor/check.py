"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    good = "good"
    warning = "warning"
    bad = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. ``cure`` says what to do where it is not good."""

    name: str
    state: State
    said: str
    cure: str = ""


def good(name: str, said: str) -> Check:
    return Check(name, State.good, said)


def warning(name: str, said: str, cure: str) -> Check:
    return Check(name, State.warning, said, cure)


def bad(name: str, said: str, cure: str) -> Check:
    return Check(name, State.bad, said, cure)
