"""Levels 1 to 14 and 16 of one text: what there is to read in it, what each level finds, and one score.

Whoever only passes by does not load it: patterns, words and weights take some forty megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from circuit_script.judgment import matching, model, polyglot
from circuit_script.judgment.exfil import exfil
from circuit_script.judgment.intake import page_of
from circuit_script.judgment.markup import hidden_texts, markup
from circuit_script.judgment.mosaic import joined_texts, mosaic
from circuit_script.judgment.page import Page, shown
from circuit_script.judgment.verdict import Finding
from circuit_script.judgment.words import classes

WITHIN = 4  # hidden and joined pieces of a text that are judged as texts of their own
# How much a disguise says: much of it, and a little.
DISGUISES: Mapping[str, tuple[float, float]] = {
    "tag": (0.6, 0.4),
    "variation": (0.5, 0.1),
    "bidi": (0.3, 0.1),
    "invisible": (0.3, 0.1),
    "homoglyph": (0.4, 0.2),
    "wide": (0.2, 0.1),
    "combining": (0.2, 0.1),
}
MUCH = 8  # characters

Read = tuple[float, tuple[Finding, ...]]


def read(text: str) -> Read:
    """Levels 1 to 16 but 15: how surely a text is an attack, and all that was found, by its place."""
    score, findings = _of_page(page_of(text))
    return score, tuple(sorted(findings, key=lambda each: (each.span, -each.score)))


def _of_page(page: Page, *, inner: bool = False) -> Read:
    """All readings of a text, each in the light of what was found in any: what one hides, another shows."""
    codes = [classes(view.plain) for view in page.views]
    told = [*matching.findings(page), *markup(page), *mosaic(page), *exfil(page)]
    told += [each for view, read in zip(page.views, codes, strict=True) for each in polyglot.in_view(view, read)]
    levels = _highest(told)
    score = max(model.score(view.plain, levels, read).score for view, read in zip(page.views, codes, strict=True))
    findings = _disguises(page) + told
    if not inner:
        for text, span in [*hidden_texts(page), *joined_texts(page)][:WITHIN]:
            theirs, said = _of_page(page_of(text), inner=True)
            findings += [replace(each, span=span) for each in said]
            score = max(score, theirs)
    return score, tuple(findings)


def _highest(findings: Iterable[Finding]) -> dict[str, float]:
    """By level the highest score."""
    highest: dict[str, float] = {}
    for each in findings:
        if each.score > highest.get(each.level, 0.0):
            highest[each.level] = each.score
    return highest


def _disguises(page: Page) -> list[Finding]:
    """Levels 2 and 3 as findings: what was removed or folded, and what was decoded."""
    found = [
        Finding(
            "canon",
            DISGUISES.get(name, (0.2, 0.1))[count < MUCH],
            page.hidden_span,
            f"{count} {name}",
            "Characters are disguised.",
        )
        for name, count in page.hidden.items()
    ]
    return found + [
        Finding(
            "unmask", min(0.2 * view.depth, 0.6), view.span(0, len(view.plain)), shown(view.plain), f"It is {view.how}."
        )
        for view in page.views[1:]
    ]
