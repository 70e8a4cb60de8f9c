"""A text as the levels before the model read it: its views, and the strongest finding of each level."""

from __future__ import annotations

from circuit_script.judgment.disguise import disguise
from circuit_script.judgment.exfil import exfil
from circuit_script.judgment.intake import page_of
from circuit_script.judgment.markup import markup
from circuit_script.judgment.matching import findings
from circuit_script.judgment.model import DISGUISE
from circuit_script.judgment.mosaic import mosaic
from circuit_script.judgment.polyglot import polyglot

LEVELS = (findings, markup, exfil, mosaic, polyglot)


def read(text: str) -> tuple[list[str], dict[str, float]]:
    """The views as text, the plain one first, and by level the highest score; under "canon" how disguised it is."""
    page = page_of(text)
    texts = dict.fromkeys(each for view in page.views for each in (view.plain, view.loose) if each)
    found = {DISGUISE: disguise(page)}
    for level in LEVELS:
        for each in level(page):
            found[each.level] = max(found.get(each.level, 0.0), each.score)
    return list(texts) or [""], found
