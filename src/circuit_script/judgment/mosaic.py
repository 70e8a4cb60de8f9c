"""Level 13: attacks made of many pieces: many shots, split orders, floods, text off screen, suffixes found by trial."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from functools import cache, lru_cache
from itertools import islice, pairwise

import numpy as np

from circuit_script.judgment.compiled import LOOPS, TILES
from circuit_script.judgment.markup import speaks
from circuit_script.judgment.page import EVIDENCE, Page
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
AT_LEAST = 64  # characters that are compared at once
COLONS, QUOTES, CLEAR, CODE = 1, 2, 4, 8  # what signs a text has
READ_TWICE = 4  # texts whose pieces are remembered: who reads one asks twice
AT_ONCE, LABELS = 2048, 1024  # characters in which names, labels are looked for at once: seldom all are needed

_RULES = rules(LEVEL)
_SPACE = r"[ \t\n\f\r]"  # as google-re2 has it
# Written backwards: what stands before a character that is rare is found quickly from there.
_NRUT = re.compile(rf": ?[0-9]{{0,3}} ?([^\x00-@\[-`{{-\x7f]{{1,10}})(?={_SPACE[:-1]}\"'>]|\Z)")
_LETTERS = compiled(r"\pL+")
_LABEL = compiled(r"(?:^|[^\pL\pN])(?:([a-h])|[\pL\pM]{3,10} ?([1-8]))(?:\s|[=:,])[^\"“'`\n]{0,12}$")
_OF_QUOTES = {"mosaic.split", "mosaic.pieces"}
_NEXT = [re.compile(rf"[{each}{each.upper()}{nth}][\s=:,]") for nth, each in enumerate("abcdefgh", 1)]  # what it has
# A second piece has this before it, whatever else it has.
_SECOND = compiled(r"[b2](?:\s|[=:,])[^\"“'`\n]{0,12}[\"“]")


def _any_case(expression: str) -> str:
    """The same for letters of both cases, and for the two others that google-re2 takes for an s and a k."""
    others = {"s": "ſ", "k": "\u212a"}
    return re.sub("[a-z]", lambda each: f"[{each[0]}{each[0].upper()}{others.get(each[0], '')}]", expression)


_NTH = _any_case("eno|owt|eerht|ruof|evif") + "|[a-fA-F]"
_LETTER = "a-zA-Z_$ſ\u212a"
_DEMAN = re.compile(  # a name, what says that it is one, and a quote: `x = "`, `part one: '`, `piece 2 is “`
    rf"[\"'“`](?<!\n.|\"\"|''|``|”“)(?:{_SPACE}{{0,3}}(?:=:?|:|>-){_SPACE}{{0,3}}"
    rf"|{_SPACE}{{1,3}}(?:(?:{_any_case('si|eb|era|slauqe|sniatnoc|syas|snaem|sa')}){_SPACE}|[0-9] ?|(?:{_NTH}) ))"
    rf"(?:([0-9]{{1,2}}|{_NTH}) [{_LETTER}0-9]{{0,15}}[{_LETTER}]\b"
    rf"|([0-9]{{0,2}}[{_LETTER}0-9]{{0,15}}[{_LETTER}])\b)",
    re.ASCII,
)
_QUOTE = re.compile("[\"'“`]")
_CLOSING = {'"': '"', "'": "'", "“": "”", "`": "`"}
_LONGEST = 250  # characters between two quotes
_JOIN = compiled(
    r"\b(?:combin|concat|join|merg|assembl|append|stitch|glue|interlac|interleav|put together|putting together"
    r"|string together|add(?:ing)? together|piece together|unite)\w{0,7}\b"
    r"|\s\+\s|\bin (?:that |this |the right )?order\b|\bfollowing parts\b"
)
_DOING = (
    "answer|follow|execut|obey|respond|reply|do what|do as|carry out|perform|run|act on|comply|complete"
    "|tell me|print the result and|treat (?:it|the result)|interpret|give an example"
)
_DO, _MAY_DO = compiled(rf"\b(?:{_DOING})\w{{0,4}}\b"), compiled(_DOING)
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
_ANY_CODE = compiled("|".join(map(re.escape, _CODE)))
_ORDER = compiled(r"\b([a-z_$]\w{0,15}(?:\s?\+\s?[a-z_$]\w{0,15}){1,12})\b")
_ADDED = re.compile(r"\+\s?([a-z_$]\w{0,15})", re.ASCII)
_EMPTY = (" " * 64, "\n\n\n\n", "\n \n \n")
_WORD = re.compile(r"\S")

_SORTS = (  # of characters: letters and digits, signs of code, those of prose, and spaces; 0 is any other
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    b'[]{}()\\*+=<>|~^`#$%&@!?_/;:"',
    b".,'-",
    b" \n\t\r",
)
_KINDS = bytes(next((kind for kind, some in enumerate(_SORTS, 1) if each in some), 0) for each in range(256))


def mosaic(page: Page, known: Set[str] = frozenset()) -> list[Finding]:
    """What pieces of one text do together, but for these patterns."""
    return pieced(page.text, known)


def pieced(text: str, known: Set[str] = frozenset()) -> list[Finding]:
    """The same of a text without a page."""
    findings: list[Finding] = []
    signs = _signs(text)
    if len(text) >= FLOOD and "mosaic.flood" not in known:
        _flood(text, findings)
    if signs & CLEAR and "mosaic.off-screen" not in known:
        _off_screen(text, findings)
    if signs & COLONS and "mosaic.many-shot" not in known:
        _many_shot(text, findings)
    if signs & QUOTES and not known >= _OF_QUOTES:
        _split(readable(text), findings, known)
    if signs & CODE and "mosaic.suffix" not in known:
        _suffix(text, findings)
    return findings


def _signs(text: str) -> int:
    """What a text has without which nothing is to be found: as many colons or quotes, a clear space, signs of code."""
    if TILES is not None:
        signs: int = TILES.signs(text)
        return signs
    return _signs_of(text)


def _signs_of(text: str) -> int:
    signs = COLONS if text.count(":") + text.count("：") >= 2 * MANY_SHOTS - 1 else 0
    signs |= QUOTES if _has_quotes_of(text) else 0
    if " " * 64 in text or (text.count("\n") >= LINES and ("\n\n\n\n" in text or "\n \n \n" in text)):
        signs |= CLEAR
    dense = len(text) >= WINDOW and sum(map(text.__contains__, _RARE)) >= 7 and _densest_of(text)[1] >= SIGNS
    return signs | (CODE if dense else 0)


def joined_texts(page: Page) -> list[tuple[str, tuple[int, int]]]:
    """What comes out where a text's pieces are put together as it says, and where the pieces stand; to be read as a
    view of its own."""
    joined = _joined(readable(page.text)) if _has_quotes(page.text) else None
    return [] if joined is None else [joined]


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
    floods = _floods(text, step) if TILES is None else TILES.floods(text, step, PIECE, FAR, FLOOD)
    for start, end, period in floods:
        unit = text[start : start + period]
        letters = sum(map(str.isalnum, unit))
        if letters == 0 or letters * 3 < len("".join(unit.split())):
            continue
        if not any(each.isspace() for each in text[start : start + 200]) and end - start < 2000:
            continue  # one long word: an encoding, or a line drawn with letters
        rest = len(text) - (end - start)
        score = _RULES["flood"].weight * (0.6 if rest < 15 else 1.2 if end - start > 1000 else 1.0)
        findings.append(_RULES["flood"].found(LEVEL, (start, end), text[start:end], score))


def _floods(text: str, step: int) -> Iterator[tuple[int, int, int]]:
    """From where to where something comes again and again, and after how many characters."""
    until = 0
    for place in range(0, len(text) - PIECE, step):
        if place < until:
            continue
        period = text.find(text[place : place + PIECE], place + 1, place + FAR + PIECE) - place
        if period < 0:
            continue
        start, until = _repeated(text, place, period)
        if until - start >= max(FLOOD, 6 * period):
            yield start, until, period


def _repeated(text: str, place: int, period: int) -> tuple[int, int]:
    """From where to where around this place each character is the one that stands so far before it: twice as many are
    compared at once while they are the same, and half as many where they are not."""
    last = len(text) - period
    start = end = place
    step = AT_LEAST
    while step and end < last:
        to = min(end + step, last)
        same = text[end:to] == text[end + period : to + period]
        end, step = (to, step * 2) if same else (end, step // 2)
    step = AT_LEAST
    while step and start:
        to = max(start - step, 0)
        same = text[to:start] == text[to + period : start + period]
        start, step = (to, step * 2) if same else (start, step // 2)
    return start, end + period


def _off_screen(text: str, findings: list[Finding]) -> None:
    word = _WORD.search(text)
    begin = word.start() if word else len(text)
    for start, end, last in _empty_places(text):
        wide = end - start >= SPACES or text.count("\n", start, end) >= LINES
        if wide and end < last and begin < start:
            rest = text[end : min(end + 1000, last)]
            rule = _RULES["off-screen"]
            score = max(0.15, rule.weight * speaks(rest))
            said = " ".join(rest[: 4 * EVIDENCE].split())
            findings.append(rule.found(LEVEL, (start, min(len(text), end + 200)), said, score))


def _empty_places(text: str) -> Iterator[tuple[int, int, int]]:
    """Where a text is empty: from where, to where, and how far that was looked for."""
    signs = {sign: place for sign in _EMPTY if (place := text.find(sign)) >= 0}
    for _ in range(EMPTY):
        if not signs:
            return
        start = min(signs.values())
        last = min(start + 20_000, len(text)) if start else len(text)
        word = _WORD.search(text, start, last)
        end = word.start() if word else last
        yield start, end, last
        place = max(end, start + 1)
        signs = {
            sign: at
            for sign, known in signs.items()
            if (at := known if known >= place else text.find(sign, place)) >= 0
        }


def _many_shot(text: str, findings: list[Finding]) -> None:
    """Two labels that take turns, in whatever language."""
    turns = _turns(text)
    labels = [label for label, _, _ in turns]
    often = {label for label, count in Counter(labels).items() if count >= MANY_SHOTS}
    if len(often) < 2:
        return
    pairs = Counter(pair for pair in pairwise(labels) if pair[0] != pair[1] and often.issuperset(pair))
    if not pairs:
        return
    (asks, answers), count = pairs.most_common(1)[0]
    if count < MANY_SHOTS or pairs[answers, asks] < count - 1:
        return
    text = readable(text)
    turns = [each for each in turns if each[0] in (asks, answers)]
    open_end = turns[-1][0] == answers and len(text) - turns[-1][2] < 4
    said = speaks(text[turns[-2 if open_end else -1][1] :][:1000])
    score = 0.2 + (0.15 if open_end else 0.0) + (0.1 if count >= 4 * MANY_SHOTS else 0.0) + 0.3 * said
    findings.append(_RULES["many-shot"].found(LEVEL, (turns[0][1], turns[-1][2]), text[turns[0][1] :], score))


def _turns(text: str) -> list[tuple[str, int, int]]:
    """The first labels with a colon, each with its first character and the one behind the colon."""
    if LOOPS is None:
        return _turns_of(text)
    turns: list[tuple[str, int, int]] = LOOPS.turns(text, TURNS, _more_letters)
    return turns


def _turns_of(text: str) -> list[tuple[str, int, int]]:
    text = text.replace("：", ":")
    turns: list[tuple[str, int, int]] = []
    begin, last = 0, text.rfind(":") + 1
    while begin < last and len(turns) < TURNS:
        end = text.find(":", min(begin + LABELS, last - 1)) + 1
        part = text[max(begin - 1, 0) : end][::-1]  # from the colon before, behind which no label begins
        for match in reversed([*_NRUT.finditer(part)]):
            label = match[1][::-1]
            if label.isalpha() or _is_word(label):
                behind, before = match.span()
                turns.append((label.lower(), end - before, end - behind))
        begin = end
    return turns[:TURNS]


@lru_cache(TURNS)
def _is_word(label: str) -> bool:
    """Whether these are letters to google-re2, to which some are that are none to Python, or that it does not know."""
    return not label.isascii() and all(each.isalpha() or each in _more_letters(ord(each) >> 8) for each in label)


@cache
def _more_letters(block: int) -> frozenset[str]:
    """What google-re2 takes for letters among 256 characters."""
    some = readable("".join(map(chr, range(block << 8, (block + 1) << 8))))
    return frozenset(letter for each in _LETTERS.finditer(some) for letter in each[0] if not letter.isalpha())


def _has_quotes(text: str) -> bool:
    return TILES.quoted(text) if TILES is not None else _has_quotes_of(text)


def _has_quotes_of(text: str) -> bool:
    if '"' in text and text.count('"') >= 4:
        return True
    if ("“" in text and text.count("“") >= 2) or ("`" in text and text.count("`") >= 4):
        return True
    return "'" in text and (" '" in text or "='" in text) and text.count("'") >= 4


def _split(text: str, findings: list[Finding], known: Set[str]) -> None:
    asked = _joined(text)
    joined = asked or _torn(text)
    if joined is None:
        return
    said, span = joined
    orders = speaks(said)
    if ("mosaic.split" if orders > 0.25 else "mosaic.pieces") in known:
        return
    told = _is_told(text) if asked else not any(each in text for each in _CODE)
    if orders > 0.25:
        if told or not _is_code(text):
            findings.append(_RULES["split"].found(LEVEL, span, said, _RULES["split"].weight * orders))
    elif told:
        weight = _RULES["pieces"].weight * (0.3 if _is_code(text) else 1.0)
        findings.append(_RULES["pieces"].found(LEVEL, span, said, weight))


def _is_code(text: str) -> bool:
    if len(text) > SHORT and "ſ" not in text:  # which google-re2 takes for an s
        return _ANY_CODE.search(text) is not None
    low = text.lower()
    return any(each in low for each in _CODE)


@lru_cache(READ_TWICE)
def _joined(text: str) -> tuple[str, tuple[int, int]] | None:
    """The quoted pieces in the order that the text asks for, and where they stand."""
    if _JOIN.search(text) is None:
        return None
    pieces, span = _named(text)
    if len(pieces) < 2:
        return None
    return "".join([pieces[each] for each in _asked(text, pieces)]), span


def _named(text: str) -> tuple[dict[str, str], tuple[int, int]]:
    """The first quoted pieces that have a name, and from where to where they stand."""
    if TILES is None:
        return _named_of(text)
    named: tuple[dict[str, str], tuple[int, int]] = TILES.named(text, MOST, _LONGEST)
    return named


def _named_of(text: str) -> tuple[dict[str, str], tuple[int, int]]:
    pieces: dict[str, str] = {}
    first, end = -1, 0
    after = dict.fromkeys("\"'“`", -1)  # of each quote where it closes next
    line, far = -1, len(text) + 2 * _LONGEST  # where it stands that comes no more
    for part, match in _names(text):
        behind, before = match.span()
        start = part - behind - 1
        if start < end:
            continue
        quote = text[start]
        close = after[quote]
        if close <= start:
            close = text.find(_CLOSING[quote], start + 1)
            after[quote] = close = close if close >= 0 else far
        if not 1 < close - start <= _LONGEST + 1:
            continue
        if line <= start:
            line = text.find("\n", start)
            line = line if line >= 0 else far
        if line < close:
            continue
        name = match[match.lastindex or 0][::-1].lower()
        if name in pieces:
            name = f"{name}#{len(pieces)}"
        if name not in pieces:
            pieces[name] = text[start + 1 : close]
        first, end = part - before if first < 0 else first, close + 1
        if len(pieces) >= MOST:
            break
    return pieces, (first, end)


def _names(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """The names before quotes, each with the place from where on it was read backwards."""
    begin = 0
    while begin < len(text):
        quote = _QUOTE.search(text, begin + AT_ONCE)
        end = quote.end() if quote else len(text)
        for match in reversed([*_DEMAN.finditer(text[begin:end][::-1])]):
            yield end, match
        begin = end


def _asked(text: str, pieces: dict[str, str]) -> list[str]:
    """The names of the pieces in their order, or as they are added up."""
    if "+" not in text or (text.isascii() and pieces.keys().isdisjoint(_ADDED.findall(text.lower()))):
        return list(pieces)
    for start, end in islice(_ORDER.spans(text), MOST):
        asked = [each.strip().lower() for each in text[start:end].split("+")]
        if all(each in pieces for each in asked):
            return asked
    return list(pieces)


def _is_told(text: str) -> bool:
    """Whether a text asks to do something near where it asks to put pieces together."""
    if _MAY_DO.search(text) is None:
        return False
    around: list[str] = []
    for count, (start, end) in enumerate(islice(_JOIN.spans(text), MOST)):
        around.append(text[max(0, start - 120) : end + 160])
        if len(around) >= 16 or count < 4:  # the others at once: nothing goes from one line to the next
            if _DO.search("\n".join(around)) is not None:
                return True
            around.clear()
    return bool(around) and _DO.search("\n".join(around)) is not None


def _torn(text: str) -> tuple[str, tuple[int, int]] | None:
    """Pieces A, B or 1, 2 of one sentence that was cut within, in whatever language."""
    if not (_SECOND.search(text) if TILES is None else TILES.second(text)):
        return None
    pieces, first, closed = _pieces_of(text) if TILES is None else TILES.torn(text, MOST, _LONGEST, _LABEL.search)
    if len(pieces) < 2 or pieces[0].rstrip()[-1:] in ".!?":
        return None
    return "".join(pieces), (first, closed)


def _pieces_of(text: str) -> tuple[list[str], int, int]:
    """The pieces in their order, none if they do not go on, and from where to where they stand."""
    pieces: list[str] = []
    last = first = end = closed = 0
    curly = text.find("“")
    for _ in range(MOST):
        if 0 <= curly < end:
            curly = text.find("“", end)
        start = text.find('"', end)
        if start < 0 or 0 <= curly < start:
            start = curly
        close = text.find("”" if text[start] == "“" else '"', start + 1, start + _LONGEST) if start >= 0 else -1
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
            return [], 0, 0
        first = first if pieces else max(0, start - 30)
        pieces.append(said)
        last = place
        closed = end
    return pieces, first, closed


def _suffix(text: str, findings: list[Finding]) -> None:
    """Signs of code in a text that is none: torn words, many kinds of signs, brackets that close nothing."""
    best, most, of_last = TILES.densest(text) if TILES is not None else _densest_of(text)
    last = len(text) - WINDOW
    for start in {best, last}:
        piece = text[start : start + WINDOW]
        if (most if start == best else of_last) >= SIGNS and _is_soup(
            piece, piece.encode("latin-1", "replace").translate(_KINDS)
        ):
            findings.append(_RULES["suffix"].found(LEVEL, (start, start + WINDOW), piece))
            return


def _densest_of(text: str) -> tuple[int, int, int]:
    """Of the windows of a text the first that has most signs of code, and how many it has and the last window."""
    kinds = np.frombuffer(text.encode("latin-1", "replace").translate(_KINDS), np.uint8)
    sums = np.zeros(len(kinds) + 1, np.uint8)  # a byte is enough for the differences
    np.cumsum((kinds == 2).view(np.uint8), dtype=np.uint8, out=sums[1:])
    counts = sums[WINDOW:] - sums[:-WINDOW]
    best = int(counts.argmax())
    return best, int(counts[best]), int(counts[-1])


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
