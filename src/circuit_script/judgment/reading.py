"""Levels 1 to 14 and 16 of one text: what there is to read in it, what each level finds, and one score.

Whoever only passes by does not load it: patterns, words and weights take some forty megabytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from math import inf

from circuit_script.judgment import matching, model, polyglot
from circuit_script.judgment.canon import plain_forms, those
from circuit_script.judgment.disguise import disguise
from circuit_script.judgment.exfil import exfil, may_leave
from circuit_script.judgment.intake import LONG, page_of, windows
from circuit_script.judgment.markup import hidden_texts, markup
from circuit_script.judgment.mosaic import joined_texts, mosaic, pieced
from circuit_script.judgment.page import Offsets, OneByOne, Origins, Page, View, once, shown
from circuit_script.judgment.places import HELD, SAYING, Places, in_codes, rarer
from circuit_script.judgment.unmask import coded
from circuit_script.judgment.verdict import Finding
from circuit_script.judgment.words import Codes, classes, classes_of

WITHIN = 4  # hidden and joined pieces of a text that are judged as texts of their own; the others are one
ALIKE = 12  # findings of one pattern in a long text
SHOWN = 3  # places of one code in it
PLACED = 4  # of what was decoded in it, the surest, in which sequences of words get their places
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
FEW = 4096  # characters of hidden pieces that are read of any text
MORE = 0.7  # says what is written in so many codes, hides or has so much, that not all of it is read
AT_ONCE = 24 * 1024  # characters of other readings that are read together
# Characters of other readings and of pieces that are read for each of a long text, and besides; each takes as much as
# some more, and each finding does. Of 834 real documents none has half as many.
OTHERWISE, SPARE, EACH = 1.6, 16 * 1024, 96
# A long text that has this score and so many findings that say something is read no further.
SURE, SEVERAL = 0.999, 40
# Findings that say something, in a long text, or one in so many characters: that is twice as many as harmless ones
# have, and all that are looked for.
FOUND, FOUND_IN = 80, 800

Read = tuple[float, tuple[Finding, ...]]
Place = tuple[int, int] | Callable[[], tuple[int, int]]
"""From where to where something stands, or who says it: that takes time, and most says nothing."""


def read(text: str) -> Read:
    """Levels 1 to 16 but 15: how surely a text is an attack, and all that was found, by its place."""
    score, findings = _of_text(str.__str__(text))  # `Untrusted` is a str that compiled loops do not take
    return score, tuple(sorted(findings, key=lambda each: (each.span, -each.score)))


def scores(texts: Sequence[str]) -> list[float]:
    """Of each of these texts the score that `read` says. Those that can be read in one way only are read at once, which
    costs a fraction."""
    texts = [*map(str.__str__, texts)]
    forms = plain_forms(texts)
    closer = those([form or "" for form in forms], coded)
    found = [0.0] * len(texts)
    single: list[tuple[int, str, Page | None]] = []
    for place, (text, form) in enumerate(zip(texts, forms, strict=True)):
        if len(text) > LONG:
            found[place] = _of_long(text)[0]
        elif form is not None and place not in closer and not _may_hold_more(text):
            single.append((place, form, None))
        else:
            page = page_of(text) if form is None or place in closer else _page(text, form)
            if len(page.views) > 1 or page.hidden or page.views[0].loose or hidden_texts(page) or joined_texts(page):
                found[place] = _of_page(page)[0]
            else:
                single.append((place, page.views[0].plain, page))
    if single:
        places, plains, pages = zip(*single, strict=True)
        for place, score in zip(places, _of_singles([texts[at] for at in places], plains, pages), strict=True):
            found[place] = score
    return found


def _page(text: str, plain: str) -> Page:
    return Page(text, (View("plain", plain, tuple),))


def _may_hold_more(text: str) -> bool:
    """Whether a text in ASCII has a sign of markup or of a quotation, without which nothing is hidden in it, and it is
    not in pieces."""
    return (
        "<" in text or "[" in text or "{" in text or '"' in text or "'" in text or "`" in text or text.startswith("---")
    )


@dataclass(slots=True)
class _Room:
    """How many more characters of other readings and of pieces are read of a long text."""

    left: float = SPARE


def _of_text(text: str, room: _Room | None = None, *, decoded: bool = True) -> Read:
    """What is to be read in a text; in a piece of another one, where that leaves it this room."""
    if len(text) > LONG:
        return _of_long(text, room, decoded=decoded)
    return _of_page(page_of(text, decoded=decoded), inner=room is not None, decoded=decoded)


def _of_singles(texts: Sequence[str], plains: Sequence[str], pages: Sequence[Page | None]) -> Iterable[float]:
    """The scores of texts that have this plain form and no other view, and nothing within them that is a text of its
    own; with their pages, where there are."""
    codes = classes_of(plains)
    leaving = those([plain if plain.isascii() else "" for plain in plains], may_leave)
    told: list[float] = []
    for nth, (text, plain, page) in enumerate(zip(texts, plains, pages, strict=True)):
        said = pieced(text)
        if nth in leaving or not (text.isascii() and plain.isascii()):
            said += exfil(page or _page(text, plain))
        told.append(_surest(said) if said else 0.0)
    levels = map(max, matching.highest(texts, plains, model.LEVELS), polyglot.highest(codes), told)
    return map(model.model().fused, _logits(plains, codes), levels)


def _logits(plains: Sequence[str], codes: Sequence[Codes]) -> list[float]:
    """What the model says of each of several texts. Those in ASCII are read apart: one letter beyond it would make all
    take longer."""
    found = [0.0] * len(plains)
    wide = [place for place, plain in enumerate(plains) if not plain.isascii()]
    narrow = sorted(set(range(len(plains))).difference(wide))
    for places in (narrow, wide):
        if places:
            said = model.model().logits([plains[place] for place in places], [codes[place] for place in places])
            for place, logit in zip(places, said, strict=True):
                found[place] = logit
    return found


def _of_page(page: Page, *, inner: bool = False, decoded: bool = True) -> Read:
    """All readings of a text, each in the light of what was found in any: what one hides, another shows."""
    codes = [classes(view.plain) for view in page.views]
    told = [
        *matching.findings(page),
        *markup(page),
        *mosaic(page),
        *exfil(page),
        *_pieced(page.views[1:]),
        *_more(page),
    ]
    told += [each for view, read in zip(page.views, codes, strict=True) for each in polyglot.in_view(view, read)]
    logits = model.model().logits([view.plain for view in page.views], codes)
    score = model.model().fused(max(logits), _surest(told), disguise(page))
    findings = _disguises(page) + told
    if not inner:
        pieces = [*hidden_texts(page), *joined_texts(page), *_within(page.views[1:])]
        theirs, said = _of_pieces(pieces, len(page.text), _Room(), decoded=decoded and not page.views[-1].more)
        return max(score, theirs), (*findings, *said)
    return score, tuple(findings)


@dataclass(frozen=True, slots=True)
class _Window:
    """What a window of a long text has: what is found there, hidden and joined pieces, and what else it says.
    ``coded``: it has more codes than are read."""

    span: tuple[int, int]
    found: tuple[Finding, ...]
    others: tuple[View, ...]
    pieces: tuple[tuple[str, Place], ...] = ()
    joined: tuple[tuple[str, Place], ...] = ()
    coded: bool = False

    @property
    def more(self) -> int:
        """What there is to read besides its own, in characters."""
        texts = {said for each in self.others for said in (each.plain, each.loose) if said}
        texts.update(said for said, _ in (*self.pieces, *self.joined))
        return sum(map(len, texts)) + EACH * (len(texts) + len(self.found))


def _in_windows(page: Page, repeated: Set[str], *, inner: bool, decoded: bool) -> Iterator[_Window]:
    """What takes time and is therefore bounded, window by window: no decoy uses up what is left for the rest. What else
    they say is told once. Behind a window with more codes than are read none is decoded."""
    text, known, at = page.text, {view.plain for view in page.views}, 0
    for start, end in windows(text):
        part = page_of(text[start:end], decoded=decoded)
        coded = part.views[-1].more
        decoded = decoded and not coded
        found = (*markup(part), *mosaic(part, repeated), *exfil(part), *_more(part))
        there = 0 if part.text.isascii() else page.views[0].plain.find(part.views[0].plain, at)
        at = max(at, there)  # a window stands behind the one before
        first, others = part.views[0], []
        for view in part.views[there >= 0 :]:
            if view.plain not in known:
                known.add(view.plain)
                others.append(replace(view, offsets=_later(view.offsets, start), loose=""))
        if first.loose:
            others.append(View("spelling", "", tuple, first.loose, _later(first.loose_offsets, start)))
        yield _Window(
            (start, end),
            tuple(_moved(each, start) for each in found),
            tuple(others),
            () if inner else tuple(hidden_texts(part, start)),
            () if inner else tuple((said, (lo + start, hi + start)) for said, (lo, hi) in joined_texts(part)),
            coded,
        )


def _of_long(text: str, of: _Room | None = None, *, decoded: bool = True) -> Read:
    """A text that is also read in windows. Words, patterns and what repeats are read in the whole, as those of a short
    text. What is surely held by then is read no further."""
    inner, room = of is not None, of or _Room()
    page = page_of(text, far=True, decoded=decoded)
    codes = [classes(view.plain) for view in page.views]
    found = [*mosaic(page), *matching.findings(page)]
    repeated = {each.pattern for each in found}
    found += [each for view, its in zip(page.views, codes, strict=True) for each in polyglot.in_view(view, its)]
    places = Places(page.views[0], codes[0], len(text))
    if far := page.views[1:]:
        places.read(far, codes[1:], [view.span(0, len(view.plain)) for view in far])
        places.decodes(matching.findings(Page("", tuple(view for view in far if in_codes(view)))))
    places.finds(found)
    most = max(FOUND, len(text) // FOUND_IN)
    disguises = _disguises(page)
    read: list[_Window] = []
    later: list[_Window] = []
    held = _is_sure(places, found)
    for window in _in_windows(page, repeated, inner=inner, decoded=decoded) if not held else ():
        read.append(window)
        later.append(window)
        new = [*window.found]
        room.left -= window.more - (0 if inner else OTHERWISE * (window.span[1] - window.span[0]))
        if room.left < 0:
            new.append(_too_much("unmask.otherwise", "It says more in other ways than is read.", text, (0, len(text))))
        if room.left < 0 or window.span[1] == len(text) or sum(each.more for each in later) > AT_ONCE:
            new += _of_others(later, places)
            later.clear()
        places.finds(new)
        found += new
        if held := room.left < 0 or _saying(found) > most or _is_sure(places, found):
            break
    if held and room.left >= 0:
        found.append(_too_much("mosaic", "So much is found in it that it is read no further.", text, (0, len(text))))
        places.finds(found[-1:])
    others = [view for window in read for view in window.others if view.plain]
    if others:
        disguises += _disguises(Page("", (others[0], *_few_of_each(others))))
    findings = _most(disguises + found)
    if inner or held:
        return places.score, tuple(findings)
    joined = [*joined_texts(page), *(each for window in read for each in window.joined)]
    pieces = [*(each for window in read for each in window.pieces), *joined, *_within(others)]
    decoded = decoded and not any(window.coded for window in read)
    theirs, told = _of_pieces(pieces, len(text), room, dict(joined), decoded=decoded)
    return max(places.score, theirs), (*findings, *_most(told))


def _is_sure(places: Places, found: Sequence[Finding]) -> bool:
    """Whether what is found in a long text is an attack, whatever else is: no rule of a policy lets several patterns
    pass."""
    saying = {(each.pattern, each.span) for each in found if each.score >= SAYING}
    return len(saying) >= SEVERAL and len({pattern for pattern, _ in saying}) > 1 and places.score >= SURE


def _of_others(windows: Sequence[_Window], places: Places) -> list[Finding]:
    """What is found in other readings of windows: by patterns, of codes and of what only looks otherwise, and by
    sequences of words, with their places where those are surest."""
    others = [(view, window.span) for window in windows for view in window.others]
    coded, alike = [view for view, _ in others if in_codes(view)], [view for view, _ in others if not in_codes(view)]
    found = matching.findings(Page("", (_joined(coded),))) if coded else []
    places.decodes(found)
    found += matching.findings(Page("", (_joined(alike),))) if alike else ()
    if not (some := [each for each in others if each[0].plain]):
        return found
    views, spans = zip(*some, strict=True)
    codes = classes_of([view.plain for view in views])
    sure = places.read(views, codes, spans)
    surest = sorted(range(len(views)), key=lambda each: -sure[each])[:PLACED]
    return found + [each for nth in surest if sure[nth] for each in polyglot.in_view(views[nth], codes[nth])]


def _few_of_each(views: Sequence[View]) -> Iterator[View]:
    """The first views of each code."""
    some: dict[str, list[View]] = {}
    for view in views:
        some.setdefault(view.how, []).append(view)
    return (view for each in some.values() for view in each[:SHOWN])


def _within(views: Iterable[View]) -> Iterator[tuple[str, Place]]:
    """What is hidden or in pieces in what was decoded."""
    for view in views:
        page = Page(view.plain, ())
        for text, (start, end) in (*hidden_texts(page), *joined_texts(page)):
            yield text, partial(view.span, start, end)


def _saying(findings: Iterable[Finding]) -> int:
    """How many of them say something."""
    return sum(each.score >= SAYING for each in findings)


def _more(page: Page) -> Iterator[Finding]:
    """That not all was decoded: harmless texts have no codes twice as long as they are."""
    if page.views[-1].more:
        yield _too_much("unmask", "More of it is written in codes than is read.", page.text, (0, len(page.text)))


def _too_much(name: str, why: str, text: str, span: tuple[int, int]) -> Finding:
    """That not all was read: ``name`` is a level, and of what where it has several bounds."""
    return Finding(name.partition(".")[0], MORE, span, shown(text[span[0] : span[1]]), why, f"{name}{HELD}")


def _pieced(views: Iterable[View]) -> Iterator[Finding]:
    """What pieces of what was decoded do together."""
    for view in views:
        for each in pieced(view.plain) if view.depth else ():
            yield replace(each, span=view.span(*each.span))


def _later(offsets: Offsets, by: int) -> Offsets:
    def later() -> Origins:
        places = offsets()
        return OneByOne(len(places), lambda at: int(places[at]) + by)

    return once(later)


def _joined(views: Sequence[View]) -> View:
    """Several views as the lines of one, in which patterns are looked for at once."""
    plains = [(each.plain, each.offsets) for each in views if each.plain]
    looses = [(each.loose, each.loose_offsets) for each in views if each.loose]
    return View(
        "windows",
        "\n".join([text for text, _ in plains]),
        once(lambda: _in_order(plains)),
        "\n".join([text for text, _ in looses]),
        once(lambda: _in_order(looses)),
    )


def _in_order(texts: Sequence[tuple[str, Offsets]]) -> Origins:
    """The places of several texts one behind the other."""
    begins = [*accumulate((len(text) + 1 for text, _ in texts), initial=0)]

    def place(at: int) -> int:
        nth = bisect_right(begins, at) - 1
        return int(texts[nth][1]()[at - begins[nth]])

    return OneByOne(begins[-1], place)


def _moved(found: Finding, by: int) -> Finding:
    return replace(found, span=(found.span[0] + by, found.span[1] + by)) if by else found


def _most(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, and of those that are alike the surest."""
    kept: list[Finding] = []
    counts: dict[tuple[str, str, str], int] = {}
    seen: set[tuple[str, str, tuple[int, int]]] = set()
    for each in sorted(findings, key=lambda each: -each.score):
        kind, at = (each.level, each.pattern, each.why), (each.level, each.pattern or each.why, each.span)
        if at not in seen and counts.get(kind, 0) < ALIKE:
            seen.add(at)
            counts[kind] = counts.get(kind, 0) + 1
            kept.append(each)
    return kept


def _of_pieces(
    pieces: Iterable[tuple[str, Place]], size: int, room: _Room, joined: Container[str] = (), *, decoded: bool = True
) -> Read:
    """Hidden and joined pieces of a text of this size as texts of their own: some by themselves, and the others in one,
    if that is no longer than the text, or FEW characters: what harmless texts hide is not as long as they are. Of a
    text that has more codes than are read, no piece is decoded."""
    spans = dict(reversed(dict(reversed([*pieces])).items()))
    if not spans:
        return 0.0, ()
    texts = list(spans)
    some, others = texts[:WITHIN], texts[WITHIN:]
    alone = zip(some, _of_each(some, room, decoded=decoded), strict=True)
    read = [(_of_many(each, size) if text in joined else each, [0], [text]) for text, each in alone]
    begins = list(accumulate((len(each) + 2 for each in others), initial=0))
    if begins[-1] > max(size, FEW):
        more = _too_much("markup", "More of it is hidden than is read.", others[0], (0, len(others[0])))
        read.append(((model.model().fused(-inf, MORE), (more,)), [0], others))
    elif others:
        said = _of_text("\n\n".join(others), room, decoded=decoded)
        read.append((_of_many(said, size) if begins[-1] <= LONG else said, begins, others))
    findings = [
        replace(each, span=_told(spans[of[bisect_right(begins, each.span[0]) - 1]]))
        for (_, said), begins, of in read
        for each in said
    ]
    return max(score for (score, _), _, _ in read), tuple(findings)


def _of_many(read: Read, size: int) -> Read:
    """A piece of a text of this size that is one of many: a long one has so many that some look like an attack."""
    if size <= LONG:
        return read
    held = any(each.pattern.endswith(HELD) for each in read[1])  # not all of it was read, and that counts whole
    return max(rarer(read[0], size), model.model().fused(-inf, MORE) if held else 0.0), read[1]


def _told(place: Place) -> tuple[int, int]:
    return place() if callable(place) else place


def _of_each(texts: Sequence[str], room: _Room, *, decoded: bool) -> Iterable[Read]:
    """Pieces as texts of their own. In most nothing is found, and that is seen of all at once."""
    for text, score in zip(texts, _of_silent(texts), strict=True):
        yield _of_text(text, room, decoded=decoded) if score is None else (score, ())


def _of_silent(texts: Sequence[str]) -> Sequence[float | None]:
    """Of each of these texts in which no level finds anything the score; None of one that takes a closer look."""
    forms = plain_forms(texts)
    closer = those([form or "" for form in forms], coded)
    found: list[float | None] = [None] * len(texts)
    places = [
        place
        for place, (text, form) in enumerate(zip(texts, forms, strict=True))
        if len(text) <= LONG
        and text.isascii()
        and form is not None
        and place not in closer
        and not _may_hold_more(text)
        and not pieced(text)
    ]
    plains = [forms[place] or "" for place in places]
    if not places or matching.any_found([texts[place] for place in places], plains):
        return found
    codes = classes_of(plains)
    leaving = those(plains, may_leave)
    logits = model.model().logits(plains, codes)
    for nth, (place, sure) in enumerate(zip(places, polyglot.highest(codes), strict=True)):
        if not sure and nth not in leaving:
            found[place] = model.model().fused(logits[nth], 0.0)
    return found


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
