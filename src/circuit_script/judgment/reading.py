"""Levels 1 to 14 and 16 of one text: what there is to read in it, what each level finds, and one score.

Whoever only passes by does not load it: patterns, words and weights take some forty megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from circuit_script.judgment import matching, model, polyglot
from circuit_script.judgment.canon import plain_forms
from circuit_script.judgment.exfil import exfil
from circuit_script.judgment.intake import page_of
from circuit_script.judgment.markup import hidden_texts, markup
from circuit_script.judgment.mosaic import joined_texts, mosaic
from circuit_script.judgment.page import Page, View, shown
from circuit_script.judgment.unmask import coded
from circuit_script.judgment.verdict import Finding
from circuit_script.judgment.words import classes, classes_of

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


def scores(texts: Sequence[str]) -> list[float]:
    """Of each of these texts the score that `read` says. Those that can be read in one way only are read at once, which
    costs a fraction."""
    pages = _pages(texts)
    found = [0.0] * len(texts)
    single: list[int] = []
    for place, page in enumerate(pages):
        if len(page.views) > 1 or page.hidden or page.views[0].loose or hidden_texts(page) or joined_texts(page):
            found[place] = _of_page(page)[0]
        else:
            single.append(place)
    for place, score in zip(single, _of_pages([pages[place] for place in single]), strict=True):
        found[place] = score
    return found


def _pages(texts: Sequence[str]) -> list[Page]:
    forms = plain_forms(texts)
    several = coded("\n ".join([each for each in forms if each is not None]))
    return [
        Page(text, (View("plain", form, tuple),))
        if form is not None and not (several and coded(form))
        else page_of(text)
        for text, form in zip(texts, forms, strict=True)
    ]


def _of_pages(pages: Sequence[Page]) -> Iterable[float]:
    """The scores of pages that have one view, and nothing within them that is a text of its own."""
    if not pages:
        return ()
    plains = [page.views[0].plain for page in pages]
    codes = classes_of(plains)
    told = [_surest((*mosaic(page), *exfil(page))) for page in pages]
    patterns = matching.highest([page.text for page in pages], plains, model.LEVELS)
    levels = map(max, patterns, polyglot.highest(codes), told)
    return map(model.model().fused, model.model().logits(plains, codes), levels)


def _of_page(page: Page, *, inner: bool = False) -> Read:
    """All readings of a text, each in the light of what was found in any: what one hides, another shows."""
    codes = [classes(view.plain) for view in page.views]
    told = [*matching.findings(page), *markup(page), *mosaic(page), *exfil(page)]
    told += [each for view, read in zip(page.views, codes, strict=True) for each in polyglot.in_view(view, read)]
    logits = model.model().logits([view.plain for view in page.views], codes)
    score = model.model().fused(max(logits), _surest(told))
    findings = _disguises(page) + told
    if not inner:
        for text, span in [*hidden_texts(page), *joined_texts(page)][:WITHIN]:
            theirs, said = _of_page(page_of(text), inner=True)
            findings += [replace(each, span=span) for each in said]
            score = max(score, theirs)
    return score, tuple(findings)


def _surest(findings: Iterable[Finding]) -> float:
    """The highest score of what the levels found that the model takes into account."""
    return max((each.score for each in findings if each.level in model.LEVELS), default=0.0)


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
