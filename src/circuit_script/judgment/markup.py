"""Level 8: text in markup that people do not see, and whether it speaks to a model.

To hide text is common: newsletters hide a preview, pictures have a description. So it counts little by itself, and
much where the hidden text gives orders or speaks to a machine.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from heapq import heappush, heappushpop
from itertools import accumulate, islice

from circuit_script.judgment.compiled import HIDDEN, Finder, Hidden
from circuit_script.judgment.entities import unescaped
from circuit_script.judgment.page import Page
from circuit_script.judgment.rules import Together, compiled, data, readable, rules
from circuit_script.judgment.verdict import Finding

LEVEL = "markup"
MOST = 1000  # pieces of one kind that are looked at
NAMED = 40  # styles with a name that hide
READ_TWICE = 4  # texts whose hidden pieces are remembered: who reads one asks twice
TOGETHER = 16  # pieces that are read at once: most say nothing
LONG_TOGETHER = 1000  # characters of so many pieces, which take as long one by one
LONGEST = 4000  # characters of a piece
TAGS = 32  # that are remembered: those of a text are often the same
KEYS = 256  # that are remembered
LONGEST_ENTITY = 40  # characters; what is longer is none, or the text behind one
MOST_READ = 64_000  # characters that are judged piece by piece
MOST_FINDINGS = 20  # the surest
HARMLESS = 0.1  # is what a hidden text scores by itself
SMALL_TALK = 0.1  # up to this, a text gives no orders to a model

_RULES = rules(LEVEL)
_WORDS = {name: "|".join(f"(?:{each})" for each in some) for name, some in data(LEVEL)["words"].items()}
_SAID = Together({name: _WORDS[name] for name in ("drop", "secretive", "address", "command")})

_STYLE = compiled(
    r"display\s{0,3}:\s{0,3}none|visibility\s{0,3}:\s{0,3}(?:hidden|collapse)|opacity\s{0,3}:\s{0,3}(?:0?\.0\d?"
    r"|0)(?:[^.\d]|$)"
    r"|font(?:-size)?\s{0,3}:\s{0,3}(?:0|[01](?:\.\d{1,3})?(?:px|pt)|0?\.\d{1,3}(?:em|rem|px|pt|%))(?:[^.\da-z%]|$)"
    r"|font-size\s{0,3}:\s{0,3}0(?:px|pt|em|rem|%)|(?:left|top|right|bottom|text-indent|margin-(?:left"
    r"|top))\s{0,3}:\s{0,3}-\d{3,5}"
    r"|translate[xy]?\(\s{0,3}-\d{3,5}|clip\s{0,3}:\s{0,3}rect\(\s{0,3}[01]"
    r"|clip-path\s{0,3}:\s{0,3}(?:inset\((?:50|100)%|circle\(0)"
    r"|(?:[;\s\"'](?:max-)?(?:height|width))\s{0,3}:\s{0,3}[01](?:px|em)?(?:[;\s\"'}]|$)|scale\(0"
    r"|[;\s\"'{]color\s{0,3}(?::|=\"?)\s{0,3}(?:#f{3}(?:f{3})?\b|white\b|transparent"
    r"|rgba?\(255,\s{0,2}255,\s{0,2}255|rgba\(\d{1,3},\s{0,2}\d{1,3},\s{0,2}\d{1,3},\s{0,2}0\))"
    r"|\shidden(?:[\s>=/]|$)|aria-hidden\s{0,3}=\s{0,3}[\"']?true|type\s{0,3}=\s{0,3}[\"']?hidden"
)  # fmt: skip
_SELECTOR = re.compile(r"[.#]([a-zA-Z_\u017f\u212a][\w\u017f\u212a-]{1,40})[^.#{}]{0,80}\Z", re.ASCII)
# These are Python's own: each begins at a rare character, and what comes again in them is bounded and ends before the
# next of its kind. They read a text in small letters.
_SPACE = r"[ \t\n\f\r]"
_ATTRIBUTES = (
    "alt", "title", "aria-label", "aria-description", "aria-roledescription", "summary", "placeholder", "content",
    "description", "label", "longdesc", "value",
)  # fmt: skip
_ATTRIBUTE = re.compile(
    rf"[ \t\n\f\r\"'](?:{'|'.join(_ATTRIBUTES)}|data-[a-z0-9_-]{{1,40}}){_SPACE}{{0,3}}={_SPACE}{{0,3}}[\"']"
)
_ELEMENTS = "noscript|template|title|desc|metadata|details|noframes|datalist"
_ELEMENT = re.compile(rf"<({_ELEMENTS})[^<>]{{0,200}}>")
# What the two have; most texts have it not, and it is looked for from one character.
_GIVEN, _OPENED = re.compile(r"=\s{0,3}[\"']"), re.compile(f"<(?:{_ELEMENTS})")
# Notes and comments are fields that people read; those of machines have a mark before them, or another name.
_KEY_NAME = re.compile(
    r"[_$@#/]{1,3}[a-z][\w-]{0,30}|(?:internal|hidden|ai|llm|system|debug|meta)[_-][a-z_-]{1,30}"
    r"|[a-z_]{0,20}(?:meta(?:data)?|instructions?|hints?|prompt|system|hidden|internal|debug|directive|annotations?"
    r"|alt_?text|tooltip)"
)
_KEY = re.compile(
    rf"[\"'](?=[\w$@#/-]{{1,40}}+[\"']{_SPACE}{{0,4}}:{_SPACE}{{0,4}}[\"'])"
    rf"(?:{_KEY_NAME.pattern})[\"']{_SPACE}{{0,4}}:{_SPACE}{{0,4}}([\"'])"
)
_ADDRESS = re.compile(r"[a-zA-Z0-9_.:#$@~+-]*/[a-zA-Z0-9_.:/#$@~+-]*")  # it says nothing to anybody
_CLOSED = {quote: re.compile(rf"(?<!\\){quote}") for quote in "\"'"}
_NAME = re.compile(r"[^ />]{0,29}")
_OTHER_NAME = re.compile(r"<[^ />]{0,28}[^\x00-\x7f]")
_VOID = frozenset(
    {"img", "input", "br", "hr", "meta", "link", "area", "base", "col", "embed", "source", "track", "wbr"}
)


def speaks(text: str) -> float:
    """How surely a text gives orders to a model: 0 if it is like any, 1 if it tells one to drop what it was told."""
    return _says(readable(text))


def _says(text: str) -> float:
    """The same of a text that google-re2 takes, as all are that were found in one."""
    said = _SAID.of(text) if len(text) > 3 else ()
    if not said:
        return 0.0
    told = "address" in said, "command" in said
    if "drop" in said or ("secretive" in said and any(told)):
        return 1.0
    if "secretive" in said:
        return 0.8
    return 0.85 if all(told) else 0.25 if told[0] else 0.1


def markup(page: Page) -> list[Finding]:
    """What is hidden in a text; all of it that is harmless is one finding with a low score."""
    pieces = _hidden(page.text)
    if not pieces:
        return []
    findings = [
        _RULES[name].found(LEVEL, (start, end), text, score) for score, (text, start, end, name) in _speaking(pieces)
    ]
    if not findings:
        text, start, end, name = pieces[0]
        findings.append(_RULES[name].found(LEVEL, (start, end), text, HARMLESS))
    return findings


def _speaking(pieces: Sequence[Hidden]) -> list[tuple[float, Hidden]]:
    """The surest of the pieces that speak to a model, with their scores. Pieces that are read at once say at least what
    each of them says: where that is too little for a place among the surest, they are not read one by one."""
    texts = _read([piece[0] for piece in pieces])
    most = _says("\n".join(texts))
    if most <= SMALL_TALK:
        return []
    surest: list[tuple[float, int]] = []  # with their places, the first of which is the highest
    for first in range(0, len(texts), TOGETHER):
        some = texts[first : first + TOGETHER]
        together = "\n".join(some) if len(texts) > TOGETHER else ""
        said = _says(together) if 0 < len(together) < LONG_TOGETHER else most
        if said <= SMALL_TALK:
            continue
        for at, text in enumerate(some, first):
            full, weight = len(surest) == MOST_FINDINGS, _weight(pieces[at])
            if full and (_rounded(weight * said), -at) < surest[0]:
                continue
            its = _says(text)
            if its > SMALL_TALK:
                (heappushpop if full else heappush)(surest, (_rounded(weight * its), -at))
    return [(score, pieces[-at]) for score, at in sorted(surest, reverse=True)]


def _read(texts: Sequence[str]) -> Sequence[str]:
    """Those of the pieces that are read: as many at once as there are of them, until these are enough characters."""
    if sum(map(len, texts)) <= MOST_READ:
        return texts
    ends = accumulate(map(len, texts))
    over = next(nth for nth, end in enumerate(ends) if end > MOST_READ)
    return texts[: (over // TOGETHER + 1) * TOGETHER]


def _weight(piece: Hidden) -> float:
    return _RULES[piece[3]].weight


def _rounded(score: float) -> float:
    return round(min(score, 1.0), 3)


def hidden_texts(page: Page, at: int = 0) -> list[tuple[str, tuple[int, int]]]:
    """Each text that people do not see, decoded, and where it stands in a text of which this page begins there; those
    that are read as a view of their own."""
    return [(text, (start + at, end + at)) for text, start, end, _ in _hidden(page.text)]


@lru_cache(READ_TWICE)
def _hidden(text: str) -> tuple[Hidden, ...]:
    tags, brackets, braces = "<" in text, "[" in text, ":" in text and ("{" in text or text.startswith("---"))
    if not (tags or brackets or braces):
        return ()
    text = readable(text)
    small = _small(text) if braces or ">" in text else ""
    finder = _finder()
    found: list[Hidden] = []
    if tags:
        found += finder.comments(text)
        if ">" in text:
            found += _styled(finder, text, small)
            found += finder.given(text, small, 0, len(text))
            found += _elements(finder, text, small)
    if brackets:
        found += finder.definitions(text)
        found += finder.markdown(text)
    if braces:
        found += _heading(finder, text)
        found += finder.keys(text, small) if "{" in text else ()
    return finder.kept(found)


def _small(text: str) -> str:
    """A text of the same length in small letters of ASCII; all else is a question mark, which no expression here knows.
    Two letters beyond ASCII are those of it in another case."""
    if text.isascii():
        return text.lower()
    same = text.replace("\u212a", "k").replace("\u017f", "s")
    return same.encode("ascii", "replace").lower().decode()


def _styled(finder: Finder, text: str, small: str) -> list[Hidden]:
    low = small if _alike(text) else _lower(text)
    ends_alike = text.isascii() or not ("\u017f" in text or "\u212a" in text)  # a word ends before these two
    spans = [*islice(_STYLE.spans(small if ends_alike else text), MOST)]
    if not spans:
        return []
    found, sheets = finder.styled(text, small, low, spans, "background" in small or "bgcolor" in small)
    names: list[str] = []
    for start in sheets:
        if len(names) >= NAMED:
            break
        names += _selected(text, start)
    return found + finder.of_classes(text, small, low, [*dict.fromkeys(names)], MOST // NAMED) if names else found


def _alike(text: str) -> bool:
    """Whether the ends of elements are found in small letters of ASCII too: no name of one has other letters."""
    return text.isascii() or ("\u017f" not in text and _OTHER_NAME.search(text) is None)


def _lower(text: str) -> str:
    """A text of the same length in small letters: one in small has another length, one depends on those beside it."""
    return text.replace("\u0130", "i").replace("\u03a3", "\u03c3").lower()


def _selected(text: str, start: int) -> Iterator[str]:
    """The name that a style has in a sheet."""
    brace = text.rfind("{", max(0, start - 200), start)
    if brace >= 0:
        before = text[max(0, brace - 120) : brace].rstrip()
        selector = _SELECTOR.match(before, max(before.rfind("."), before.rfind("#"), 0))
        if selector is not None:
            yield selector[1]


@lru_cache(TAGS)
def _other_ground(tag: str) -> bool:
    """White text on a ground of another colour is no hidden text: a button."""
    low = tag.lower()
    if ("background" not in low and "bgcolor" not in low) or "color" not in low:
        return False
    if any(each in low for each in ("display", "visibility", "opacity", "font-size:0", "hidden", "-9999")):
        return False
    ground = low.partition("background")[2] or low.partition("bgcolor")[2]
    value = ground.partition(":" if ":" in ground[:10] else "=")[2].lstrip(" \"'")[:8]
    return not value.startswith(("#fff", "white", "transp"))


def _goes_on(letter: str) -> bool:
    return letter.isascii() and (letter.isalnum() or letter == "_")


def _elements(finder: Finder, text: str, small: str) -> Iterator[Hidden]:
    if _OPENED.search(small) is None:
        return
    covered = 0
    for match in islice((each for each in _ELEMENT.finditer(small) if not _goes_on(text[each.end(1)])), MOST):
        start = match.end()
        if start < covered:
            continue
        name = text[match.start(1) : match.end(1)]
        end = text.find(f"</{name}", start, start + LONGEST)
        covered = end if end >= 0 else start + LONGEST
        yield finder.piece(text, start, min(covered, len(text)), "element")


def _heading(finder: Finder, text: str) -> Iterator[Hidden]:
    """The lines between two rules at the begin of a text."""
    end = text.find("\n---", 4, 4 + LONGEST) if text.startswith(("---\n", "---\r\n")) else -1
    if end < 0:
        return
    place = 4
    for line in text[4:end].split("\n")[:MOST]:
        if len(line) > 12:
            yield finder.piece(text, place, place + len(line), "metadata")
        place += len(line) + 1


@lru_cache(KEYS)
def _is_key(name: str) -> bool:
    return _KEY_NAME.fullmatch(name) is not None


@cache
def _finder() -> Finder:
    if HIDDEN is None:
        return Plain()
    limits = MOST, LONGEST, MOST_READ, LONGEST_ENTITY
    found: Finder = HIDDEN.Finder(
        limits, frozenset(_ATTRIBUTES), _VOID, unescaped, html.unescape, _is_key, _other_ground
    )
    return found


class Plain:
    """`Finder` where nothing is compiled."""

    def kept(self, found: Iterable[Hidden]) -> tuple[Hidden, ...]:
        """The pieces that are no scraps: they have more than three characters, and letters among them."""
        return tuple([each for each in found if len(each[0]) > 3 and any(map(str.isalpha, each[0][:200]))])

    def piece(self, text: str, start: int, end: int, rule: str) -> Hidden:
        """What stands there, without the tags in it and with its entities decoded."""
        end = min(end, start + LONGEST)
        said = text[start:end]
        if "<" in said and rule != "comment":
            parts = said.split("<")
            said = " ".join([parts[0], *[part.partition(">")[2] for part in parts[1:]]])
        return self.decoded(said).strip() if "&" in said else said.strip(), start, end, rule

    def decoded(self, said: str) -> str:
        """With its entities decoded: each goes from its sign to a semicolon at most, and most are the same few."""
        first, *parts = said.split("&")
        told = [first]
        for part in parts:
            name, end, rest = part.partition(";")
            told.append(unescaped(f"&{name}{end}") + rest if len(name) < LONGEST_ENTITY else html.unescape(f"&{part}"))
        return "".join(told)

    def comments(self, text: str) -> list[Hidden]:
        """Remarks in a page."""
        found: list[Hidden] = []
        end = 0
        while end >= 0 and len(found) < MOST and (start := text.find("<!--", end)) >= 0:
            end = text.find("-->", start + 4)
            found.append(self.piece(text, start + 4, len(text) if end < 0 else end, "comment"))
        return found

    def given(self, text: str, small: str, first: int, last: int) -> list[Hidden]:
        """What stands in attributes."""
        found: list[Hidden] = []
        if _GIVEN.search(small, first, last) is None:
            return found
        for match in islice(_ATTRIBUTE.finditer(small, first, last), MOST):
            start = match.end()
            end = text.find(text[start - 1], start, min(start + LONGEST, last))
            if end - start > 8:
                found.append(self.piece(text, start, end, "attribute"))
        return found

    def styled(
        self, text: str, small: str, low: str, spans: Iterable[tuple[int, int]], grounds: bool
    ) -> tuple[list[Hidden], list[int]]:
        """What stands in the elements that have a style which hides them in their tag, and where such styles stand that
        are in none: in a sheet of styles, or a text about them. ``low`` is the text in small letters;
        ``grounds``: it may be that some have another ground."""
        found: list[Hidden] = []
        sheets: list[int] = []
        seen = covered = -1
        for first, last in spans:
            start, end = first + 1, last - 1
            tag = text.rfind("<", max(0, start - 1000), start)
            if tag < 0 or text.find(">", tag, start) >= 0:
                sheets.append(start)
                continue
            if tag == seen or tag < covered:
                continue
            seen = tag
            close = text.find(">", end, end + 1000)
            if close >= 0 and not (grounds and _other_ground(text[tag:close])):
                inside = self._inside(text, small, low, tag, close)
                covered = inside[-1][2] if inside else covered
                found += inside
        return found, sheets

    def of_classes(self, text: str, small: str, low: str, names: Iterable[str], most: int) -> list[Hidden]:
        """What stands in the elements that have one of these names in their tag, each once, and so many of one name at
        most. Where elements stand within each other, one character is part of many pieces: of all of them, no more is
        taken than is read."""
        found: list[Hidden] = []
        tags: set[int] = set()
        left = MOST_READ
        for tag, close in (each for name in names for each in self._named(text, name, most)):
            if tag in tags:
                continue
            tags.add(tag)
            inside = self._inside(text, small, low, tag, close)
            found += inside
            left -= sum([end - start for _, start, end, _ in inside])
            if left < 0:
                break
        return found

    def _named(self, text: str, name: str, most: int) -> Iterator[tuple[int, int]]:
        """From where to where the tags go that have this name in them."""
        end = 0
        for _ in range(most):
            place = text.find(name, end)
            if place < 0:
                return
            end = place + len(name)
            tag = text.rfind("<", max(0, place - 500), place)
            close = text.find(">", end, end + 500) if tag >= 0 else -1
            if close >= 0 and text.find(">", tag, place) < 0:
                yield tag, close

    def _inside(self, text: str, small: str, low: str, tag: int, close: int) -> list[Hidden]:
        """The text of the element whose tag stands from ``tag`` to ``close``."""
        name = self._opened(low[tag:close])
        if not name:
            return []
        if name == "input":
            return self.given(text, small, tag, close + 1)
        first, last = close + 1, min(close + 1 + LONGEST, len(text))
        return [self.piece(text, first, self._end_of(name, low, first, last), "hidden-style")]

    def _opened(self, tag: str) -> str:
        """The name of a tag's element, or "" if no text is in it."""
        name: str = _NAME.match(tag, 1)[0]  # type: ignore[index]  # it matches nothing too
        if name == "input":
            return name
        return "" if not name.isalnum() or name in _VOID or tag.endswith("/") else name

    def _end_of(self, name: str, low: str, place: int, last: int) -> int:
        """Where an element of this name ends whose text begins at ``place``."""
        depth, ends = 1, -1
        for _ in range(20):
            if ends < place:
                ends = low.find(f"</{name}", place, last)
            if ends < 0:
                return last
            opens = low.find(f"<{name}", place, ends)
            if opens >= 0:
                depth, place = depth + 1, opens + 1
                continue
            depth, place = depth - 1, ends
            if depth == 0:
                break
            place += 2
        return place

    def markdown(self, text: str) -> list[Hidden]:
        """Descriptions of pictures, and titles of links."""
        found: list[Hidden] = []
        place = 0
        for _ in range(MOST):
            place = text.find("](", place + 1)
            if place < 0:
                break
            start = text.rfind("![", max(0, place - 1000), place)
            if start >= 0 and text.find("]", start, place) < 0:
                found.append(self.piece(text, start + 2, place, "markdown"))
            end = text.find(")", place, place + 1000)
            quote = text.find('"', place, end) if end >= 0 else -1
            if quote >= 0:
                last = text.find('"', quote + 1, quote + 1000)
                if last >= 0:
                    found.append(self.piece(text, quote + 1, last, "markdown"))
        return found

    def definitions(self, text: str) -> list[Hidden]:
        """`[name]: address "title"`, and comments in the form of one."""
        found: list[Hidden] = []
        place = 0
        for _ in range(MOST):
            place = text.find("]:", place + 1)
            if place < 0:
                break
            line = text.rfind("\n", max(0, place - 200), place) + 1 or max(0, place - 200)
            if not text[line:place].lstrip(" \t>").startswith("["):
                continue
            end = text.find("\n", place, place + LONGEST)
            end = min(len(text), place + LONGEST) if end < 0 else end
            start = place + 2
            head, gap, rest = text[start:end].strip().partition(" ")
            if gap and not head.startswith(("(", '"', "'")):  # the address itself is for another level
                found.append(self.piece(text, text.find(rest, start), end, "markdown"))
            elif "://" not in head:
                found.append(self.piece(text, start, end, "markdown"))
            place = end - 1
        return found

    def keys(self, text: str, small: str) -> list[Hidden]:
        """What stands in fields that machines read."""
        found: list[Hidden] = []
        for match in islice(_KEY.finditer(small), MOST):
            start, quote = match.end(), match[1]
            end = text.find(quote, start, start + LONGEST)
            if end > start and text[end - 1] == "\\":
                closed = _CLOSED[quote].search(text, end, start + LONGEST)
                end = -1 if closed is None else closed.start()
            if end - start > 8 and _ADDRESS.fullmatch(text, start, end) is None:
                found.append(self.piece(text, start, end, "metadata"))
        return found
