"""What patterns find in a text: patterns are data (``patterns/*.toml``), read once and matched by RE2 in linear time.

A pattern has an id ("override.ignore-earlier": its level and its name), an expression, a weight from 0 to 1, a line
that says why, and a view: "plain" (canonical, lower case), "loose" (letters and digits only) or "raw" (the text).
A pattern whose expression would multiply the states of a set has another besides, which every place of it has as well
(``needs``): the set looks for that, and only a text that has it is searched for the pattern's own.
In an expression ``{{name}}`` stands for a class of words in ``patterns/_words.toml``; a class may name other classes.

The patterns of a level and a view are matched at once by a set (one set of all would be slower: the states of many
patterns multiply); the place of a match is looked for only where a pattern matched.
Expressions in ASCII read a text in which every other character is ``?``, one byte each: places in it are places in the
text, and the sets stay small. Other expressions read UTF-8: each of their places has a character beyond ASCII, or what
they need is in ASCII.
"""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import re2

from circuit_script.errors import ConfigError
from circuit_script.judgment.page import Page, View, shown
from circuit_script.judgment.rules import MEMORY, in_characters, spans, those_with
from circuit_script.judgment.verdict import Finding

FOLDER = Path(__file__).with_name("patterns")
LEVELS = frozenset({
    "override", "persona", "leak", "frame", "markup", "addressee", "action", "exfil", "polyglot", "mosaic", "coercion",
    "residue",
})  # fmt: skip
VIEWS = ("plain", "loose", "raw")
PLACES = 3  # places of one pattern in one view that become findings
PLACED = 24  # patterns of one view, the heaviest first, whose places are looked for
DEPTH = 4  # classes of words within classes


@dataclass(frozen=True, slots=True)
class Pattern:
    """One rule. ``expression`` and ``needs`` have their classes of words in place."""

    id: str
    expression: str
    weight: float
    why: str
    view: str = "plain"
    attacks: tuple[str, ...] = ()
    benign: tuple[str, ...] = ()
    needs: str = ""

    @property
    def looked_for(self) -> str:
        """What a set looks for."""
        return self.needs or self.expression

    @property
    def level(self) -> str:
        return self.id.partition(".")[0]


def expanded(expression: str, words: Mapping[str, str]) -> str:
    """The expression with each ``{{name}}`` replaced by its class of words, as a group that captures nothing."""
    for _ in range(DEPTH):
        if "{{" not in expression:
            return expression
        head, *rest = expression.split("{{")
        parts = [head]
        for each in rest:
            name, closed, tail = each.partition("}}")
            if not closed or name not in words:
                raise ConfigError(f"no class of words is named {name!r}")
            parts += [f"(?:{words[name]})", tail]
        expression = "".join(parts)
    if "{{" in expression:
        raise ConfigError("classes of words stand within each other too deep")
    return expression


def read(folder: Path = FOLDER) -> tuple[Pattern, ...]:
    """All patterns of a folder and of the folders in it, checked, in the order of their files. A file whose name begins
    with ``_`` has none."""
    words: dict[str, str] = tomllib.loads((folder / "_words.toml").read_text(encoding="utf-8"))
    found: dict[str, Pattern] = {}
    for path in sorted(folder.rglob("*.toml")):
        if path.name.startswith("_"):
            continue
        for row in tomllib.loads(path.read_text(encoding="utf-8")).get("pattern", ()):
            try:
                pattern = _pattern(row, words)
            except (ConfigError, KeyError, TypeError, ValueError) as error:
                raise ConfigError(f"{path.name}, pattern {row.get('id')!r}: {error}") from error
            if pattern.id in found:
                raise ConfigError(f"{path.name}: two patterns have the id {pattern.id!r}")
            found[pattern.id] = pattern
    return tuple(found.values())


def _pattern(row: Mapping[str, Any], words: Mapping[str, str]) -> Pattern:
    pattern = Pattern(
        id=row["id"],
        expression=expanded(row["re"], words),
        weight=float(row["weight"]),
        why=row["why"],
        view=row.get("view", "plain"),
        attacks=tuple(row.get("attacks", ())),
        benign=tuple(row.get("benign", ())),
        needs=expanded(row.get("needs", ""), words),
    )
    if pattern.level not in LEVELS or not pattern.id.partition(".")[2]:
        raise ConfigError("its id does not begin with a level and a dot")
    if not 0 <= pattern.weight <= 1:
        raise ConfigError("its weight is not from 0 to 1")
    if pattern.view not in VIEWS:
        raise ConfigError(f"its view is none of {', '.join(VIEWS)}")
    return pattern


def _options(ascii_only: bool, *, lines: bool) -> re2.Options:
    options = re2.Options()
    options.never_nl = lines
    options.never_capture = True
    options.log_errors = False
    options.max_mem = MEMORY
    if ascii_only:
        options.encoding = re2.Options.Encoding.LATIN1
    return options


def _lined(expression: str, view: str) -> bytes:
    """An expression as RE2 takes it. A view has one line, so each line of several views is read as a view."""
    return f"(?m){expression}".encode() if view != "raw" else expression.encode()


def _compiled(pattern: Pattern) -> Any:
    options = _options(pattern.expression.isascii(), lines=pattern.view != "raw")
    return re2.compile(_lined(pattern.expression, pattern.view), options=options)


class _Seen:
    """A text as bytes, for expressions in ASCII and for others, each made once."""

    __slots__ = ("_ascii", "_text", "_utf8")

    def __init__(self, text: str) -> None:
        self._text = text
        self._ascii: bytes | None = None
        self._utf8: bytes | None = None

    def may_have(self, *, ascii_only: bool) -> bool:
        """Whether expressions of this kind may be found in it."""
        return bool(self._text) and (ascii_only or not self._text.isascii())

    def bytes(self, *, ascii_only: bool) -> bytes:
        if ascii_only or self._text.isascii():
            if self._ascii is None:
                self._ascii = self._text.encode("ascii", "replace")
            return self._ascii
        if self._utf8 is None:
            self._utf8 = self._text.encode("utf-8", "replace")
        return self._utf8

    def found(self, single: Any, *, ascii_only: bool) -> Iterator[tuple[int, int]]:
        """From where to where an expression matches, in characters of the text. google-re2 would work them out too, by
        reading all of the text for each match."""
        seen = self.bytes(ascii_only=ascii_only)
        matches = spans(single, seen)
        return matches if len(seen) == len(self._text) else in_characters(seen, matches)


@dataclass(frozen=True, slots=True)
class _Group:
    """Patterns that read the same bytes: a set of them, and their places among all patterns. Those of a level are
    together, and the few that read no plain text."""

    levels: frozenset[str]
    view: str
    ascii_only: bool
    members: tuple[int, ...]
    set: Any


class Matcher:
    """Patterns, ready to match. It may be used by many threads at once."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self._singles: dict[int, Any] = {}
        self._groups = tuple(self._grouped())

    def _grouped(self) -> Iterator[_Group]:
        alike: dict[tuple[str, str, bool], list[int]] = {}
        for index, each in enumerate(self.patterns):
            together = each.level if each.view == "plain" else ""
            alike.setdefault((together, each.view, each.looked_for.isascii()), []).append(index)
        for (_, view, ascii_only), indexes in alike.items():
            yield self._group(view, ascii_only, indexes)

    def _group(self, view: str, ascii_only: bool, indexes: Sequence[int]) -> _Group:
        together = re2.Set.SearchSet(_options(ascii_only, lines=view != "raw"))
        for index in indexes:
            try:
                together.Add(_lined(self.patterns[index].looked_for, view))
            except re2.error as error:
                raise ConfigError(f"pattern {self.patterns[index].id!r} is no RE2 expression: {error}") from error
        together.Compile()
        levels = frozenset(self.patterns[index].level for index in indexes)
        return _Group(levels, view, ascii_only, tuple(indexes), together)

    def hits(self, view: View, level: str | None = None) -> list[int]:
        """The patterns, or those of one level, that match a view, as places in ``patterns``."""
        plain, loose = _Seen(view.plain), _Seen(view.loose)
        return sorted([*self._matched("plain", plain, level), *self._matched("loose", loose, level)])

    def raw_hits(self, text: str, level: str | None = None) -> list[int]:
        """The patterns that match the original text."""
        return sorted(self._matched("raw", _Seen(text), level))

    def _matched(
        self, view: str, text: _Seen, level: str | None = None, *, ascii_only: bool | None = None
    ) -> Iterator[int]:
        for group in self._groups:
            if group.view != view or not (level is None or level in group.levels):
                continue
            if ascii_only not in (None, group.ascii_only):
                continue
            if text.may_have(ascii_only=group.ascii_only):
                for at in group.set.Match(text.bytes(ascii_only=group.ascii_only)) or ():
                    index = group.members[at]
                    if level in (None, self.patterns[index].level) and self._is_there(index, text):
                        yield index

    def _is_there(self, index: int, text: _Seen) -> bool:
        """Whether a pattern matches where what it needs is there."""
        pattern = self.patterns[index]
        if not pattern.needs:
            return True
        seen = text.bytes(ascii_only=pattern.expression.isascii())
        return self._single(index).search(seen) is not None

    def _single(self, index: int) -> Any:
        single = self._singles.get(index)
        if single is None:
            single = self._singles[index] = _compiled(self.patterns[index])
        return single

    def _spans(self, index: int, text: _Seen) -> Iterator[tuple[int, int]]:
        return text.found(self._single(index), ascii_only=self.patterns[index].expression.isascii())

    def findings(self, page: Page, level: str | None = None) -> list[Finding]:
        """What the patterns, or those of one level, find on a page: all views, decoded ones too."""
        raw = _Seen(page.text)
        found = [
            self._finding(index, page.text[start:end], (start, end))
            for index in self._heaviest(self._matched("raw", raw, level))
            for start, end in islice(self._spans(index, raw), PLACES)
        ]
        for view in page.views:
            plain, loose = _Seen(view.plain), _Seen(view.loose)
            for index in self._heaviest([*self._matched("plain", plain, level), *self._matched("loose", loose, level)]):
                of_loose = self.patterns[index].view == "loose"
                text, seen = (view.loose, loose) if of_loose else (view.plain, plain)
                for start, end in islice(self._spans(index, seen), PLACES):
                    found.append(self._finding(index, text[start:end], view.span(start, end, loose=of_loose)))
        return found

    def highest(self, texts: Sequence[str], plains: Sequence[str], levels: Container[str]) -> list[float]:
        """Of each of several texts, which has this plain form and no other view, the highest weight of what these
        levels find in it; all are read at once."""
        found = [0.0] * len(texts)
        every, wide = range(len(texts)), [place for place, text in enumerate(plains) if not text.isascii()]
        self._of_plains(plains, every, levels, found, ascii_only=True)
        self._of_plains([plains[place] for place in wide], wide, levels, found, ascii_only=False)
        self._of_raws(texts, every, levels, found, ascii_only=True)
        wide = [place for place, text in enumerate(texts) if not text.isascii()]
        self._of_raws([texts[place] for place in wide], wide, levels, found, ascii_only=False)
        return found

    def _of_plains(
        self,
        plains: Sequence[str],
        places: Sequence[int],
        levels: Container[str],
        found: list[float],
        *,
        ascii_only: bool,
    ) -> None:
        """Note of these plain forms, at their places in ``found``, the highest weight of the patterns that read them
        so. A form in ASCII needs no other patterns than those in ASCII."""
        joined = _Seen("\n".join(plains))
        for index in self._matched("plain", joined, ascii_only=ascii_only):
            pattern = self.patterns[index]
            if pattern.level in levels:
                narrow = pattern.expression.isascii()
                sizes = map(len, plains) if narrow else (len(each.encode("utf-8", "replace")) for each in plains)
                begins = [*accumulate((size + 1 for size in sizes), initial=0)]
                for nth in those_with(self._single(index), joined.bytes(ascii_only=narrow), begins):
                    found[places[nth]] = max(found[places[nth]], pattern.weight)

    def _of_raws(
        self,
        texts: Sequence[str],
        places: Sequence[int],
        levels: Container[str],
        found: list[float],
        *,
        ascii_only: bool,
    ) -> None:
        """The same of texts as they are: most have nothing, and that is seen of all at once."""
        if any(True for _ in self._matched("raw", _Seen("\n".join(texts)), ascii_only=ascii_only)):
            for place, text in zip(places, texts, strict=True):
                patterns = [self.patterns[index] for index in self._matched("raw", _Seen(text), ascii_only=ascii_only)]
                weights = [each.weight for each in patterns if each.level in levels]
                found[place] = max([found[place], *weights])

    def any_found(self, texts: Sequence[str], plains: Sequence[str]) -> bool:
        """Whether any pattern matches any of several texts, which have these plain forms and no other view."""
        read = (("plain", "\n".join(plains)), ("raw", "\n".join(texts)))
        return any(True for view, text in read for _ in self._matched(view, _Seen(text)))

    def _heaviest(self, indexes: Iterable[int]) -> list[int]:
        """By weight, and of the same weight by their order."""
        return sorted(indexes, key=lambda each: (-self.patterns[each].weight, each))[:PLACED]

    def _finding(self, index: int, evidence: str, span: tuple[int, int]) -> Finding:
        pattern = self.patterns[index]
        return Finding(pattern.level, pattern.weight, span, shown(evidence), pattern.why, pattern.id)


_lock = threading.Lock()
_matcher: Matcher | None = None


def matcher() -> Matcher:
    """The patterns of this package, read and compiled when they are first asked for."""
    global _matcher
    if _matcher is None:
        with _lock:
            if _matcher is None:
                _matcher = Matcher(read())
    return _matcher


def hits(view: View, level: str | None = None) -> list[int]:
    return matcher().hits(view, level)


def findings(page: Page, level: str | None = None) -> list[Finding]:
    return matcher().findings(page, level)


def highest(texts: Sequence[str], plains: Sequence[str], levels: Container[str]) -> list[float]:
    return matcher().highest(texts, plains, levels)


def any_found(texts: Sequence[str], plains: Sequence[str]) -> bool:
    return matcher().any_found(texts, plains)
