"""Level 8: text in markup that people do not see, and whether it speaks to a model.

To hide text is common: newsletters hide a preview, pictures have a description. So it counts little by itself, and
much where the hidden text gives orders or speaks to a machine.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import heappush, heappushpop
from itertools import accumulate, islice

from circuit_script.judgment.page import Page
from circuit_script.judgment.rules import Together, compiled, data, readable, rules
from circuit_script.judgment.verdict import Finding

LEVEL = "markup"
MOST = 1000  # pieces of one kind that are looked at
NAMED = 40  # styles with a name that hide
READ_TWICE = 4  # texts whose hidden pieces are remembered: who reads one asks twice
TOGETHER = 16  # pieces that are read at once: most say nothing
LONGEST = 4000  # characters of a piece
ENTITIES = 512  # that are remembered
TAGS = 32  # that are remembered: those of a text are often the same
LONGEST_ENTITY = 40  # characters
MOST_READ = 64_000  # characters that are judged piece by piece
MOST_FINDINGS = 20  # the surest
HARMLESS = 0.1  # is what a hidden text scores by itself
SMALL_TALK = 0.1  # up to this, a text gives no orders to a model

_RULES = rules(LEVEL)
_WORDS = {name: "|".join(f"(?:{each})" for each in some) for name, some in data(LEVEL)["words"].items()}
_DROP, _SECRETIVE = compiled(_WORDS["drop"]), compiled(_WORDS["secretive"])
_TOLD = Together({name: _WORDS[name] for name in ("address", "command")})

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
_SELECTOR = compiled(r"[.#]([a-z_][\w-]{1,40})[^.#{}]{0,80}$")
# These are Python's own: each begins at a rare character, and what comes again in them is bounded and ends before the
# next of its kind. They read a text in small letters.
_SPACE = r"[ \t\n\f\r]"
_ATTRIBUTE = re.compile(
    r"[ \t\n\f\r\"'](?:alt|title|aria-(?:label|description|roledescription)|summary|placeholder|content"
    rf"|description|label|longdesc|value|data-[a-z0-9_-]{{1,40}}){_SPACE}{{0,3}}={_SPACE}{{0,3}}[\"']"
)
_ELEMENTS = "noscript|template|title|desc|metadata|details|noframes|datalist"
_ELEMENT = re.compile(rf"<({_ELEMENTS})[^<>]{{0,200}}>")
# What the two have; most texts have it not, and it is looked for from one character.
_GIVEN, _OPENED = re.compile(r"=\s{0,3}[\"']"), re.compile(f"<(?:{_ELEMENTS})")
# Notes and comments are fields that people read; those of machines have a mark before them, or another name.
_KEY = re.compile(
    rf"[\"'](?=[\w$@#/-]{{1,40}}+[\"']{_SPACE}{{0,4}}:{_SPACE}{{0,4}}[\"'])"
    r"(?:[_$@#/]{1,3}[a-z][\w-]{0,30}|(?:internal|hidden|ai|llm|system|debug|meta)[_-][a-z_-]{1,30}"
    r"|[a-z_]{0,20}(?:meta(?:data)?|instructions?|hints?|prompt|system|hidden|internal|debug|directive|annotations?"
    rf"|alt_?text|tooltip))[\"']{_SPACE}{{0,4}}:{_SPACE}{{0,4}}([\"'])"
)
_CLOSED = {quote: re.compile(rf"(?<!\\){quote}") for quote in "\"'"}
_NAME = re.compile(r"[^ />]{0,29}")
_OTHER_NAME = re.compile(r"<[^ />]{0,28}[^\x00-\x7f]")
_VOID = frozenset(
    {"img", "input", "br", "hr", "meta", "link", "area", "base", "col", "embed", "source", "track", "wbr"}
)

Hidden = tuple[str, int, int, str]
"""A hidden text, from and to where it stands, and the rule that found it."""


def speaks(text: str) -> float:
    """How surely a text gives orders to a model: 0 if it is like any, 1 if it tells one to drop what it was told."""
    if len(text) < 4:
        return 0.0
    text = readable(text)
    if _DROP.search(text) is not None:
        return 1.0
    told = _TOLD.of(text)
    if _SECRETIVE.search(text) is not None:
        return 1.0 if told else 0.8
    if len(told) == 2:
        return 0.85
    return 0.25 if "address" in told else 0.1 if told else 0.0


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
    texts = [piece[0] for piece in pieces[: _read(pieces)]]
    together = "\n".join(texts)
    said = speaks(together)
    if said <= SMALL_TALK:
        return []
    loud = _loud(texts, together)
    left = [([place for place in range(len(texts)) if place not in loud], said)]
    left += [([place], said) for place in sorted(loud, reverse=True)]
    surest: list[tuple[float, int]] = []  # with their places, the first of which is the highest
    while left:
        some, most = left.pop()
        full = len(surest) == MOST_FINDINGS
        if not some or (full and (_rounded(max([_weight(pieces[at]) for at in some]) * most), -some[0]) < surest[0]):
            continue
        said = speaks("\n".join([texts[at] for at in some]))
        if said <= SMALL_TALK:
            continue
        if len(some) == 1:
            (heappushpop if full else heappush)(surest, (_rounded(_weight(pieces[some[0]]) * said), -some[0]))
            continue
        size = TOGETHER if len(some) > TOGETHER else max(len(some) // 4, 1)
        left += [(some[first : first + size], said) for first in range(0, len(some), size)][::-1]
    return [(score, pieces[-at]) for score, at in sorted(surest, reverse=True)]


def _loud(texts: Sequence[str], together: str) -> set[int]:
    """The first of some texts in which it is likely that they say the most; they are read before the others."""
    if len(texts) <= TOGETHER:
        return set()
    ends = list(accumulate(len(text) + 1 for text in texts))
    together = readable(together)
    spans = (islice(each.spans(together), 2 * MOST_FINDINGS) for each in (_DROP, _SECRETIVE))
    return {bisect_right(ends, start) for each in spans for start, _ in each}


def _read(pieces: Sequence[Hidden]) -> int:
    """How many pieces are read: as many at once as there are of them, until these are enough characters."""
    read = 0
    for first in range(0, len(pieces), TOGETHER):
        read += sum([len(piece[0]) for piece in pieces[first : first + TOGETHER]])
        if read > MOST_READ:
            return first + TOGETHER
    return len(pieces)


def _weight(piece: Hidden) -> float:
    return _RULES[piece[3]].weight


def _rounded(score: float) -> float:
    return round(min(score, 1.0), 3)


def hidden_texts(page: Page) -> list[tuple[str, tuple[int, int]]]:
    """Each text that people do not see, decoded, and where it stands; those that are read as a view of their own."""
    return [(text, (start, end)) for text, start, end, _ in _hidden(page.text)]


@lru_cache(READ_TWICE)
def _hidden(text: str) -> tuple[Hidden, ...]:
    tags, brackets, braces = "<" in text, "[" in text, ":" in text and ("{" in text or text.startswith("---"))
    if not (tags or brackets or braces):
        return ()
    text = readable(text)
    small = _small(text) if braces or ">" in text else ""
    found: list[Hidden] = []
    if tags:
        found += _comments(text)
        if ">" in text:
            found += _styled(text, small)
            found += _attributes(text, small)
            found += _elements(text, small)
    if brackets:
        found += _markdown(text)
    if braces:
        found += _metadata(text, small)
    return tuple([each for each in found if len(each[0]) > 3 and _has_letter(each[0])])


def _has_letter(text: str) -> bool:
    return text[0].isalpha() or any(map(str.isalpha, text[:200]))


def _small(text: str) -> str:
    """A text of the same length in small letters of ASCII; all else is a question mark, which no expression here knows.
    Two letters beyond ASCII are those of it in another case."""
    if text.isascii():
        return text.lower()
    same = text.replace("\u212a", "k").replace("\u017f", "s")
    return same.encode("ascii", "replace").lower().decode()


def _piece(text: str, start: int, end: int, rule: str) -> Hidden:
    """What stands there, without the tags in it and with its entities decoded."""
    end = min(end, start + LONGEST)
    said = text[start:end]
    if "<" in said and rule != "comment":
        parts = said.split("<")
        said = " ".join([parts[0], *[part.partition(">")[2] for part in parts[1:]]])
    return _decoded(said).strip() if "&" in said else said.strip(), start, end, rule


_entity = lru_cache(ENTITIES)(html.unescape)


def _decoded(said: str) -> str:
    """With its entities decoded: each goes from its sign to a semicolon at most, and most are the same few."""
    first, *parts = said.split("&")
    told = [first]
    for part in parts:
        name, end, rest = part.partition(";")
        told.append(_entity(f"&{name}{end}") + rest if len(name) < LONGEST_ENTITY else html.unescape(f"&{part}"))
    return "".join(told)


def _comments(text: str) -> Iterator[Hidden]:
    end = 0
    for _ in range(MOST):
        start = text.find("<!--", end)
        if start < 0:
            return
        end = text.find("-->", start + 4)
        yield _piece(text, start + 4, len(text) if end < 0 else end, "comment")
        if end < 0:
            return


def _styled(text: str, small: str) -> Iterator[Hidden]:
    # Where a letter in small has another length, or depends on those beside it, each piece is taken for itself.
    low = "" if "\u0130" in text or "\u03a3" in text else small if _alike(text) else text.lower()
    names: list[str] = []
    seen = covered = -1
    ends_alike = text.isascii() or not ("\u017f" in text or "\u212a" in text)  # a word ends before these two
    for first, last in islice(_STYLE.spans(small if ends_alike else text), MOST):
        start, end = first + 1, last - 1
        tag = text.rfind("<", max(0, start - 1000), start)
        if tag < 0 or text.find(">", tag, start) >= 0:  # not in a tag: a sheet of styles, or a text about them
            if len(names) < NAMED:
                names += _selected(text, start)
            continue
        if tag == seen or tag < covered:
            continue
        seen = tag
        close = text.find(">", end, end + 1000)
        if close >= 0 and not _other_ground(text[tag:close]):
            for piece in _inside(text, small, low, tag, close):
                covered = piece[2]
                yield piece
    yield from _of_classes(text, small, low, names)


def _alike(text: str) -> bool:
    """Whether the ends of elements are found in small letters of ASCII too: no name of one has other letters."""
    return text.isascii() or ("\u017f" not in text and _OTHER_NAME.search(text) is None)


def _selected(text: str, start: int) -> Iterator[str]:
    """The name that a style has in a sheet."""
    brace = text.rfind("{", max(0, start - 200), start)
    if brace >= 0:
        selector = _SELECTOR.search(text[max(0, brace - 120) : brace].rstrip())
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


def _of_classes(text: str, small: str, low: str, names: Sequence[str]) -> Iterator[Hidden]:
    """What stands in the elements that have one of these names in their tag, each once. Where elements stand within
    each other, one character is part of many pieces: of all of them, no more is taken than is read."""
    tags: set[int] = set()
    left = MOST_READ
    for name in names:
        for tag, close in _named(text, name):
            if tag in tags:
                continue
            tags.add(tag)
            for piece in _inside(text, small, low, tag, close):
                left -= piece[2] - piece[1]
                yield piece
            if left < 0:
                return


def _named(text: str, name: str) -> Iterator[tuple[int, int]]:
    """From where to where the tags go that have this name in them."""
    end = 0
    for _ in range(MOST // NAMED):
        place = text.find(name, end)
        if place < 0:
            return
        end = place + len(name)
        tag = text.rfind("<", max(0, place - 500), place)
        close = text.find(">", end, end + 500) if tag >= 0 else -1
        if close >= 0 and text.find(">", tag, place) < 0:
            yield tag, close


def _inside(text: str, small: str, low: str, tag: int, close: int) -> Iterable[Hidden]:
    """The text of the element whose tag stands from ``tag`` to ``close``; ``low`` is all of it in small letters."""
    name = _opened(text[tag:close])
    if not name:
        return ()
    if name == "input":
        return _given(text, small, tag, close + 1)
    first, last = close + 1, min(close + 1 + LONGEST, len(text))
    if not low:
        low = text[first:last].lower()
        end = first + _end_of(name, low, 0, len(low))
    else:
        end = _end_of(name, low, first, last)
    return (_piece(text, first, min(end, len(text)), "hidden-style"),)


@lru_cache(TAGS)
def _opened(tag: str) -> str:
    """The name of a tag's element, in small letters, or "" if no text is in it."""
    name: str = _NAME.match(tag, 1)[0].lower()  # type: ignore[index]  # it matches nothing too
    if name == "input":
        return name
    return "" if not name.isalnum() or name in _VOID or tag.endswith("/") else name


def _end_of(name: str, low: str, place: int, last: int) -> int:
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


def _attributes(text: str, small: str) -> Iterable[Hidden]:
    return () if _GIVEN.search(small) is None else _given(text, small, 0, len(text))


def _given(text: str, small: str, first: int, last: int) -> Iterator[Hidden]:
    for match in islice(_ATTRIBUTE.finditer(small, first, last), MOST):
        start = match.end()
        end = text.find(text[start - 1], start, min(start + LONGEST, last))
        if end - start > 8:
            yield _piece(text, start, end, "attribute")


def _goes_on(letter: str) -> bool:
    return letter.isascii() and (letter.isalnum() or letter == "_")


def _elements(text: str, small: str) -> Iterator[Hidden]:
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
        yield _piece(text, start, min(covered, len(text)), "element")


def _markdown(text: str) -> Iterator[Hidden]:
    yield from _definitions(text)
    place = 0
    for _ in range(MOST):
        place = text.find("](", place + 1)
        if place < 0:
            return
        start = text.rfind("![", max(0, place - 1000), place)
        if start >= 0 and text.find("]", start, place) < 0:
            yield _piece(text, start + 2, place, "markdown")
        end = text.find(")", place, place + 1000)
        quote = text.find('"', place, end) if end >= 0 else -1
        if quote >= 0:
            last = text.find('"', quote + 1, quote + 1000)
            if last >= 0:
                yield _piece(text, quote + 1, last, "markdown")


def _definitions(text: str) -> Iterator[Hidden]:
    """`[name]: address "title"`, and comments in the form of one."""
    place = 0
    for _ in range(MOST):
        place = text.find("]:", place + 1)
        if place < 0:
            return
        line = text.rfind("\n", max(0, place - 200), place) + 1 or max(0, place - 200)
        if not text[line:place].lstrip(" \t>").startswith("["):
            continue
        end = text.find("\n", place, place + LONGEST)
        end = min(len(text), place + LONGEST) if end < 0 else end
        start = place + 2
        head, gap, rest = text[start:end].strip().partition(" ")
        if gap and not head.startswith(("(", '"', "'")):
            yield _piece(text, text.find(rest, start), end, "markdown")  # the address itself is for another level
        elif "://" not in head:
            yield _piece(text, start, end, "markdown")
        place = end - 1


def _metadata(text: str, small: str) -> Iterator[Hidden]:
    if text.startswith(("---\n", "---\r\n")):
        end = text.find("\n---", 4, 4 + LONGEST)
        if end >= 0:
            place = 4
            for line in text[4:end].split("\n")[:MOST]:
                if len(line) > 12:
                    yield _piece(text, place, place + len(line), "metadata")
                place += len(line) + 1
    if "{" not in text:
        return
    for match in islice(_KEY.finditer(small), MOST):
        start, quote = match.end(), match[1]
        end = text.find(quote, start, start + LONGEST)
        if end > start and text[end - 1] == "\\":
            closed = _CLOSED[quote].search(text, end, start + LONGEST)
            end = -1 if closed is None else closed.start()
        if end - start > 8:
            yield _piece(text, start, end, "metadata")
