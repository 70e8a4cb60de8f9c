"""What is wrong with a query's text: the place, a line with a caret under it, and what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from typing import Any

from circuit_script.errors import QueryRefused

SHOWN = 60  # characters on either side of the place
LONGEST_WORD = 40
MOST_SAID = 11  # things that may stand at a place
KEYWORDS = ("SELECT", "FROM", "WHERE", "ORDER", "BY", "LIMIT", "OFFSET", "AND", "OR", "NOT", "LIKE", "IN", "NULLS",
    "LAST", "ASC", "DESC", "TODAY", "YESTERDAY")  # fmt: skip
_WORD = re.compile(r"[^\W\d]\w*")
_DATE_WORDS = re.compile(r"(?:last|next|this|tomorrow|n_days)\w*(?::\d*)?", re.IGNORECASE)
# Words that Salesforce has and this has not, with what to do.
_ELSEWHERE = {
    "GROUP": "Groups and aggregates are not there: read the rows, and count them with query.count().",
    "HAVING": "Groups and aggregates are not there: read the rows, and count them with query.count().",
    "COUNT": 'Count with: await CircuitDB.query("SELECT Id FROM …").count()',
    **dict.fromkeys(("SUM", "AVG", "MIN", "MAX"), "Aggregates are not there: read the rows."),
    "INCLUDES": "Write Tags LIKE '%hot%' for a member of a list.",
    "EXCLUDES": "Write NOT Tags LIKE '%hot%' for a list without a member.",
    "JOIN": "One query reads one object: read the other by its ids.",
    "USING": "This is not there.",
    "WITH": "This is not there.",
    "FOR": "This is not there: if_version of CircuitDB.update holds a record to what was read.",
    "TYPEOF": "This is not there.",
    "IS": "Write = null, or != null.",
    "BETWEEN": "Write two conditions: Score >= 1 AND Score <= 9.",
}
# What the grammar calls what may stand at a place, as a person says it.
_SAID = {
    "NAME": "a name",
    "STRING": "text in '…'",
    "NUMBER": "a number",
    "DATETIME": "a date",
    "SIGN": "= != < <= > >=",
    "COLON": ":name",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": "a comma",
    "$END": "the end",
    "LAST_N_DAYS": "LAST_N_DAYS:n",
}


def at(text: str, place: int, detail: str, cure: str = "") -> QueryRefused:
    """The error, with the line that it is about."""
    place = min(max(place, 0), len(text))
    begin = text.rfind("\n", 0, place) + 1
    end = text.find("\n", place)
    line, column = text.count("\n", 0, place) + 1, place - begin
    left = max(0, column - SHOWN)
    shown = text[begin : end if end >= 0 else len(text)][left : column + SHOWN]
    printable = "".join(each if each.isprintable() else " " for each in shown)
    caret = " " * (column - left) + "^"
    said = f"{detail.rstrip('.')} (line {line}, character {column + 1}):\n    {printable}\n    {caret}"
    return QueryRefused(f"{said}\n   " if cure else said, cure=cure, position=place)


def unexpected(text: str, error: Any) -> QueryRefused:
    """What the parser stumbled over: a character that begins nothing, or something that may not stand there."""
    place = _place(text, error)
    possible = {each.lstrip("_") for each in _possible(error)}
    rest = text[place:]
    word = (_WORD.match(rest) or [""])[0][:LONGEST_WORD]
    if cure := _slip(text, place):
        return at(text, place, _what(rest, word), cure)
    if not rest.strip():
        missing = "FROM" if possible == {"COMMA", "FROM"} else ""
        return at(text, len(text), f"{missing} is missing" if missing else "the query ends too early", _may(possible))
    if word.upper() in _ELSEWHERE:
        return at(text, place, f"{word} cannot be asked", _ELSEWHERE[word.upper()])
    if close := difflib.get_close_matches(word.upper(), sorted(possible & set(KEYWORDS)), n=1, cutoff=0.6):
        return at(text, place, f"there is no {word}", f"Did you mean {close[0]}?")
    if possible == {"COMMA", "FROM"} or (word.upper() == "WHERE" and "FROM" in possible):
        return at(text, place, "FROM is missing", "Write SELECT fields FROM object.")
    if word and _DATE_WORDS.fullmatch(rest.split()[0].rstrip(")")) and "TODAY" in possible:
        return at(text, place, f"there is no date {word}", "There are TODAY, YESTERDAY, LAST_N_DAYS:n, and 2026-11-22.")
    return at(text, place, _what(rest, word), _may(possible))


def _place(text: str, error: Any) -> int:
    if getattr(getattr(error, "token", None), "type", "") == "$END":
        return len(text)
    place = getattr(error, "pos_in_stream", None)
    return place if isinstance(place, int) and place >= 0 else len(text)


def _possible(error: Any) -> Collection[str]:
    """What may stand at the place, as the grammar calls it."""
    for name in ("accepts", "expected", "allowed"):
        found = getattr(error, name, None)
        if isinstance(found, (set, frozenset, list)) and found:
            return set(map(str, found))
    return set()


def _slip(text: str, place: int) -> str:
    """What a habit from elsewhere would have to be."""
    rest, before = text[place:], text[:place].rstrip()
    match rest[:1]:
        case "(" if (found := re.search(r"\w+$", before)) and found[0].upper() in _ELSEWHERE:
            return _ELSEWHERE[found[0].upper()]
        case "'":
            return "This text is not closed: put ' at its end, and write ' within it as \\'."
        case '"' | "`" | "\u2018" | "\u2019" | "\u201c":
            return "Text stands in single quotation marks: 'Waco'."
        case "*":
            return "Name the fields, or write FIELDS(ALL)."
        case "." if _WORD.search(before[-1:]):
            return "One query reads one object: read the other by its ids."
        case ";":
            return "Leave the semicolon out."
        case "?" | "%" | "{" | "$":
            return 'Values are bound: WHERE Email = :email, with binds={"email": …}.'
        case "=" if before.endswith(("=", "!", "<", ">")):
            return "Equal is one =."
        case "&" | "|":
            return "Write AND, OR."
        case "-" if rest.startswith("--"):
            return "There are no comments."
        case "/" if rest.startswith(("/*", "//")):
            return "There are no comments."
        case _:
            return ""


def _what(rest: str, word: str) -> str:
    shown = word or rest[:1]
    return f"{shown if shown.isprintable() else repr(shown)} cannot stand here"


def _may(possible: Collection[str]) -> str:
    if not possible or len(possible) > MOST_SAID:
        return ""
    said = sorted({_SAID.get(each, each) for each in possible if not each.startswith("__")})
    return f"Possible here: {', '.join(said)}."
