"""What is told on the page that comes after an act: the one on which it was done is gone by then."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from nicegui import ui

from circuit_script.dashboard.pieces import toast

if TYPE_CHECKING:
    from circuit_script.dashboard.frame import View

MOST = 1000  # people of whom something is kept

_told: OrderedDict[str, list[tuple[str, str]]] = OrderedDict()


def then(view: View, place: str, words: str = "", tone: str = "good") -> None:
    """Go there, and say these words."""
    if words:
        remember(view, words, tone)
    ui.navigate.to(place)


def remember(view: View, words: str, tone: str = "good") -> None:
    """Say these words on the person's next page."""
    _told.setdefault(view.cookie, []).append((words, tone))
    _told.move_to_end(view.cookie)
    while len(_told) > MOST:
        _told.popitem(last=False)


def tell(view: View) -> None:
    """Say what is still to be said to this person."""
    for words, tone in _told.pop(view.cookie, []):
        toast(words, tone)
