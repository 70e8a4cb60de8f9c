"""Level 13: attacks made of many pieces: many shots, split orders, floods, text off screen, suffixes found by trial."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from circuit_script.judgment.markup import speaks
from circuit_script.judgment.page import Page
from circuit_script.judgment.rules import compiled, readable, rules
from circuit_script.judgment.verdict import Finding

LEVEL = "mosaic"
SAMPLES, APART = 12, 180  # places that are looked at for a repetition, and characters between two of them at least
PIECE = 10  # characters that must come again,
FAR = 200  # within so many
FLOOD = 240  # characters of a repetition
MANY_SHOTS = 5  # questions with their answers
TURNS = 300  # labels that are looked at
SPACES, LINES = 200, 30  # characters, lines: what is emptier moves the rest off a screen
WINDOW = 100  # characters of a suffix
NEIGHBOURS = 300  # characters of each of two fields that are read together
MOST = 500  # pieces
EMPTY = 60  # empty places
SIGNS = 14  # signs of code in a suffix
SHORT = 1000  # characters
READ_TWICE = 4  # texts whose pieces are remembered: who reads one asks twice

_RULES = rules(LEVEL)
_TURN = compiled(r"(?:^|[\s\"'>])(\pL{1,10}) ?\d{0,3} ?[:：]")
# The same backwards and not as strict: what is looked for from one character is found quickly.
_NRUT = re.compile(r": ?[0-9]{0,3} ?([^\s0-9:\"'>]{1,10})(?=[ \t\n\f\r\"'>]|\Z)")
_LABEL = compiled(r"(?:^|[^\pL\pN])(?:([a-h])|[\pL\pM]{3,10} ?([1-8]))(?:\s|[=:,])[^\"“'`\n]{0,12}$")
_NEXT = [re.compile(rf"[{each}{each.upper()}{nth}][\s=:,]") for nth, each in enumerate("abcdefgh", 1)]  # what it has
_NAMED = compiled(
    r"\b([a-z_$][a-z_$0-9]{0,15}(?: ?\d{1,2}| (?:one|two|three|four|five|[a-f]))?)"
    r"(?:\s{0,3}(?::?=|:|->)\s{0,3}|\s(?:is|be|are|equals|contains|says|means|as)\s{1,3}|(?: ?\d| (?:one|two"
    r"|three|four|five|[a-f]))\s{1,3})"
    r"(?:\"([^\"\n]{1,250})\"|'([^'\n]{1,250})'|“([^”\n]{1,250})”|`([^`\n]{1,250})`)"
)
_JOIN = compiled(
    r"\b(?:combin|concat|join|merg|assembl|append|stitch|glue|interlac|interleav|put together|putting together"
    r"|string together|add(?:ing)? together|piece together|unite)\w{0,7}\b"
    r"|\s\+\s|\bin (?:that |this |the right )?order\b|\bfollowing parts\b"
)
_DO = compiled(
    r"\b(?:answer|follow|execut|obey|respond|reply|do what|do as|carry out|perform|run|act on|comply|complete"
    r"|tell me|print the result and|treat (?:it|the result)|interpret|give an example)\w{0,4}\b"
)
_CODE = (
    "return ",
    "print(",
    "console.",
    "const ",
    "import ",
    "def ",
    "function",
    "var ",
    "public ",
    "#include",
    "select ",
    "</",
    "/>",
    "href=",
)
_ORDER = compiled(r"\b([a-z_$]\w{0,15}(?:\s?\+\s?[a-z_$]\w{0,15}){1,12})\b")

_SORTS = (  # of characters: letters and digits, signs of code, those of prose, and spaces; 0 is any other
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    b'[]{}()\\*+=<>|~^`#$%&@!?_/;:"',
    b".,'-",
    b" \n\t\r",
)
_KINDS = bytes(next((kind for kind, some in enumerate(_SORTS, 1) if each in some), 0) for each in range(256))


def mosaic(page: Page) -> list[Finding]:
    """What pieces of one text do together."""
    return pieced(page.text)


def pieced(text: str) -> list[Finding]:
    """The same of a text without a page."""
    findings: list[Finding] = []
    if len(text) >= FLOOD:
        _flood(text, findings)
    if "\n" in text or "    " in text:
        _off_screen(text, findings)
    colons = text.count(":") + text.count("：")
    if colons >= 2 * MANY_SHOTS - 1 and (colons > TURNS or _has_labels(text)):
        _many_shot(readable(text), findings)
    if _has_quotes(text):
        _split(readable(text), findings)
    if len(text) >= WINDOW and not _has_few_signs(text):
        _suffix(text, findings)
    return findings


def joined_texts(page: Page) -> list[tuple[str, tuple[int, int]]]:
    """What comes out where a text's pieces are put together as it says, and where the pieces stand; to be read as a
    view of its own."""
    joined = _joined(readable(page.text)) if _has_quotes(page.text) else None
    return [] if joined is None else [joined[:2]]


def assemble(pages: Sequence[Page], judge: Callable[[str], float] = speaks) -> list[Finding]:
    """What two neighbours say together and neither alone. ``judge`` says of a text how surely it is an attack. The span
    is in the text of the first of the two; what was read is the evidence, and ``why`` names both."""
    findings: list[Finding] = []
    for first, second in pairwise(pages):
        head, tail = first.text[-NEIGHBOURS:], second.text[:NEIGHBOURS]
        if not head.strip() or not tail.strip():
            continue
        alone = max(judge(head), judge(tail))
        together, said = max((judge(each), each) for each in (f"{head} {tail}", head + tail))
        if together >= 0.5 and together > alone + 0.3:
            rule = _RULES["across-fields"]
            found = rule.found(LEVEL, (len(first.text) - len(head), len(first.text)), said, rule.weight * together)
            names = " and ".join(repr(each.field) for each in (first, second) if each.field)
            why = f"{names}: {rule.why}" if names else rule.why
            findings.append(Finding(found.level, found.score, found.span, found.evidence, why, found.pattern))
    return findings


def _flood(text: str, findings: list[Finding]) -> None:
    """A few places are looked at first: in most texts nothing comes again at once."""
    step = max(APART, len(text) // SAMPLES)
    known: tuple[int, int] | None = None
    codes: np.ndarray[tuple[int], np.dtype[np.uint8 | np.uint32]] | None = None
    for place in range(0, len(text) - PIECE, step):
        if known is not None and _goes_on(text, *known, place):
            continue
        again = text.find(text[place : place + PIECE], place + 1, place + FAR + PIECE)
        if again < 0:
            continue
        known = place, again
        least = max(FLOOD, 6 * (again - place))
        unit = text[place:again]
        letters = sum(map(str.isalnum, unit)) if len(text) >= least else 0
        if letters == 0 or letters * 3 < len("".join(unit.split())):
            continue
        if codes is None:
            codes = _codes(text)
        start, end = _repeated(codes, place, again - place)
        if end - start < least:
            continue
        if not any(each.isspace() for each in text[start : start + 200]) and end - start < 2000:
            continue  # one long word: an encoding, or a line drawn with letters
        rest = len(text) - (end - start)
        score = _RULES["flood"].weight * (0.6 if rest < 15 else 1.2 if end - start > 1000 else 1.0)
        findings.append(_RULES["flood"].found(LEVEL, (start, end), text[start:end], score))


def _goes_on(text: str, place: int, again: int, to: int) -> bool:
    """Whether what stands at two places is the same up to there."""
    return text[place : max(place, to - (again - place) + 1)] == text[again : to + 1]


def _codes(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint8 | np.uint32]]:
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _repeated(
    codes: np.ndarray[tuple[int], np.dtype[np.uint8 | np.uint32]], place: int, period: int
) -> tuple[int, int]:
    """From where to where around this place each character is the one that stands so far before it."""
    same = codes[:-period] == codes[period:]
    before, after = same[:place][::-1], same[place:]
    back, on = int(before.argmin()) if place else 0, int(after.argmin())
    start = place - back if place and not before[back] else 0
    end = place + on if not after[on] else len(same)
    return start, end + period


def _off_screen(text: str, findings: list[Finding]) -> None:
    if " " * 64 not in text and ("\n" not in text or text.count("\n") < LINES or not _many_empty(text)):
        return
    place = 0
    for _ in range(EMPTY):
        start = _first(text.find(" " * 64, place), text.find("\n\n\n\n", place), text.find("\n \n \n", place))
        if start < 0:
            return
        rest = text[start:].lstrip() if start == 0 else text[start : start + 20_000].lstrip()
        end = start + (len(text) - start if start == 0 else min(20_000, len(text) - start)) - len(rest)
        place = max(end, start + 1)
        wide = end - start >= SPACES or text.count("\n", start, end) >= LINES
        if wide and rest and text[:start].strip():
            said = speaks(rest[:1000])
            rule = _RULES["off-screen"]
            findings.append(rule.found(LEVEL, (start, min(len(text), end + 200)), rest, max(0.15, rule.weight * said)))


def _many_empty(text: str) -> bool:
    return "\n\n\n\n" in text or "\n \n \n" in text


def _first(*places: int) -> int:
    return min((each for each in places if each >= 0), default=-1)


def _many_shot(text: str, findings: list[Finding]) -> None:
    """Two labels that take turns, in whatever language."""
    turns: list[tuple[str, int, int]] = []
    for match in _TURN.finditer(text):
        turns.append((match[1].lower(), match.start(1), match.end()))
        if len(turns) >= TURNS:
            break
    pairs = Counter((first[0], second[0]) for first, second in pairwise(turns) if first[0] != second[0])
    if not pairs:
        return
    (asks, answers), count = pairs.most_common(1)[0]
    if count < MANY_SHOTS or pairs[answers, asks] < count - 1:
        return
    turns = [each for each in turns if each[0] in (asks, answers)]
    open_end = turns[-1][0] == answers and len(text) - turns[-1][2] < 4
    said = speaks(text[turns[-2 if open_end else -1][1] :][:1000])
    score = 0.2 + (0.15 if open_end else 0.0) + (0.1 if count >= 4 * MANY_SHOTS else 0.0) + 0.3 * said
    findings.append(_RULES["many-shot"].found(LEVEL, (turns[0][1], turns[-1][2]), text[turns[0][1] :], score))


def _has_labels(text: str) -> bool:
    """Whether a text may have two labels that stand there so often."""
    labels = Counter([each[::-1].lower() for each in _NRUT.findall(text.replace("：", ":")[::-1])])
    return sum(count >= MANY_SHOTS for count in labels.values()) >= 2


def _has_quotes(text: str) -> bool:
    if '"' in text and text.count('"') >= 4:
        return True
    if ("“" in text and text.count("“") >= 2) or ("`" in text and text.count("`") >= 4):
        return True
    return "'" in text and (" '" in text or "='" in text) and text.count("'") >= 4


def _split(text: str, findings: list[Finding]) -> None:
    joined = _joined(text) or _torn(text)
    if joined is None:
        return
    said, span, told = joined
    orders = speaks(said)
    low = text.lower()
    code = any(each in low for each in _CODE)
    if orders > 0.25 and (told or not code):
        findings.append(_RULES["split"].found(LEVEL, span, said, _RULES["split"].weight * orders))
    elif told:
        findings.append(_RULES["pieces"].found(LEVEL, span, said, _RULES["pieces"].weight * (0.3 if code else 1.0)))


@lru_cache(READ_TWICE)
def _joined(text: str) -> tuple[str, tuple[int, int], bool] | None:
    """The quoted pieces in the order that the text asks for, and whether it also asks to do what comes out."""
    if _JOIN.search(text) is None:
        return None
    pieces: dict[str, str] = {}
    first, last = len(text), 0
    for match in _NAMED.finditer(text):
        said = match[2] or match[3] or match[4] or match[5]
        name = match[1].lower().split()[-1]
        pieces.setdefault(name if name not in pieces else f"{name}#{len(pieces)}", said)
        first, last = min(first, match.start()), max(last, match.end())
        if len(pieces) >= MOST:
            break
    if len(pieces) < 2:
        return None
    names = list(pieces)
    for count, match in enumerate(_ORDER.finditer(text)):
        if count >= MOST:
            break
        asked = [each.strip().lower() for each in match[1].split("+")]
        if all(each in pieces for each in asked):
            names = asked
            break
    told = False
    for count, match in enumerate(_JOIN.finditer(text)):
        if count >= MOST:
            break
        around = text[max(0, match.start() - 120) : match.end() + 160]
        if _DO.search(around) is not None:
            told = True
            break
    said = "".join(pieces[each] for each in names)
    return said, (first, last), told


def _torn(text: str) -> tuple[str, tuple[int, int], bool] | None:
    """Pieces A, B or 1, 2 of one sentence that was cut within, in whatever language."""
    pieces: list[str] = []
    last = first = end = closed = 0
    curly = text.find("“")
    for _ in range(MOST):
        if 0 <= curly < end:
            curly = text.find("“", end)
        start = text.find('"', end)
        if start < 0 or 0 <= curly < start:
            start = curly
        close = text.find("”" if text[start] == "“" else '"', start + 1, start + 250) if start >= 0 else -1
        if close < 0:
            break
        before = text[max(0, start - 30, end) : start]
        end = close + 1
        if close - start == 1 or last == len(_NEXT) or _NEXT[last].search(before) is None:
            continue
        label = _LABEL.search(before)
        if label is None:
            continue
        place = ord(label[1].lower()) - 96 if label[1] else int(label[2])
        said = text[start + 1 : close]
        if place != last + 1:
            continue
        if pieces and not (said[0] == " " or said[0].islower()):
            return None
        first = first if pieces else max(0, start - 30)
        pieces.append(said)
        last = place
        closed = end
    if len(pieces) < 2 or pieces[0].rstrip()[-1:] in ".!?":
        return None
    return "".join(pieces), (first, closed), not any(each in text for each in _CODE)


def _has_few_signs(text: str) -> bool:
    """Whether a text has too few signs of code, or too few kinds of them. In a short one they are quickly counted."""
    if len(text) <= SHORT and text.isascii() and len(text) - len(text.encode().translate(None, _SORTS[1])) < SIGNS:
        return True
    return sum(map(text.__contains__, _RARE)) < 7


def _suffix(text: str, findings: list[Finding]) -> None:
    """Signs of code in a text that is none: torn words, many kinds of signs, brackets that close nothing."""
    read = text.encode("latin-1", "replace").translate(_KINDS)
    kinds = np.frombuffer(read, np.uint8)
    sums = np.zeros(len(kinds) + 1, np.uint8)  # a byte is enough for the differences
    np.cumsum((kinds == 2).view(np.uint8), dtype=np.uint8, out=sums[1:])
    counts = sums[WINDOW:] - sums[:-WINDOW]
    best = int(counts.argmax())
    if int(counts[best]) < SIGNS:
        return
    for start in {best, len(text) - WINDOW}:
        end = start + WINDOW
        if int(counts[start]) >= SIGNS and _is_soup(text[start:end], read[start:end]):
            findings.append(_RULES["suffix"].found(LEVEL, (start, end), text[start:end]))
            return


def _is_soup(piece: str, kinds: bytes) -> bool:
    if "://" in piece or piece.count("\n") > 1 or piece.count('"') + piece.count("'") > 4:
        return False
    unbalanced = sum(abs(piece.count(first) - piece.count(second)) for first, second in ("()", "[]", "{}"))
    if unbalanced < 2 or any(each in piece for each in _CODE):
        return False
    if sum(map(str.isalpha, piece)) < 40 or sum(map(str.isdigit, piece)) > 8:
        return False
    if len({each for each, kind in zip(piece, kinds, strict=True) if kind == 2}) < 9:
        return False
    torn = sum(kinds[at - 1] == 1 and kinds[at] == 2 and kinds[at + 1] != 4 for at in range(1, len(kinds) - 1))
    wild = sum(1 for first, second in pairwise(piece) if first in _WILD and second in _WILD and first != second)
    return torn >= 3 and wild >= 4


_RARE = "[]{}\\*+=<>|~^`#$%&@!;"
_WILD = frozenset('[]{}()\\*+=<>|~^`#$%&@!?;:"-.,')
