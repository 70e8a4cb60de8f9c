"""The words of a line: the quick way finds what the first one did, over which indexes are built."""

from __future__ import annotations

import json
import random
from importlib.resources import files
from typing import Any

import psycopg
import pytest

LINES = 12_000
PIECES = (
    ", ", ": ", '"', '", "', '": "', ', "', '": ', ": null", "null", "{", "}", "[", "]", ": {", ": [", ",", ":", "\\",
    "\\n", "=", "/", "-", ".", "_", "@", "'", " ", "  ", "\n", "\t", "\x01", "\x1f", "\x7f", "\u00a0", "\u2028",
    "\u3000", "\ufeff", "é", "ß", "İ", "Σ", "ΟΔΟΣ", "日本語", "𝔘", "🙂", "i\u0307", "²", "½", "ª", "Müller", "ABC",
    "Lead", "lead", "c-1", "x", "4711", "true", "1e10", "hot", "waiting", "word " * 15, "w" * 59, "w" * 60, "w" * 61,
    "v" * 100, "V" * 101, "é" * 60, "y z" * 300,
)  # fmt: skip
NUMBERS = (0, -0.0, 1, -7, 4711, 0.1, 1e10, 1e-7, 1e300, 10**30)
RAW = (
    '{"a": -0}',
    '{"a": 0.10, "": 1E5}',
    '{"a": "\\u00e9\\u2028", "b": "\\/"}',
    '{"a": 1, "a": 2}',
    "{}",
    "[]",
    "null",
    '""',
    "7",
)


def some_text(choose: random.Random) -> str:
    return "".join(choose.choices(PIECES, k=choose.choice((0, 1, 1, 1, 2, 3, 5))))


def usual_text(choose: random.Random) -> str:
    return " ".join(choose.choices(("lead", "c1x33", "Hot", "score", "anna@example.com", "v1.2", "Müller,"), k=2))


def value(choose: random.Random, depth: int) -> Any:
    kind = choose.random()
    if depth and kind < 0.1:
        return context(choose, depth - 1)
    if depth and kind < 0.2:
        return [value(choose, depth - 1) for _ in range(choose.randrange(4))]
    if kind < 0.4:
        return choose.choice((True, False, None, *NUMBERS))
    return some_text(choose) if kind < 0.7 else usual_text(choose)


def context(choose: random.Random, depth: int) -> dict[str, Any]:
    named = usual_text if choose.random() < 0.6 else some_text
    return {named(choose): value(choose, depth) for _ in range(choose.choice((0, 1, 2, 3, 3, 4, 9)))}


def line(choose: random.Random) -> tuple[str | None, ...]:
    kind = choose.random()
    if kind < 0.05:
        said = None
    elif kind < 0.1:
        said = choose.choice(RAW)
    elif kind < 0.15:
        said = json.dumps(choose.choice((some_text(choose), True, 1.5, [some_text(choose), {"a": None}])))
    elif kind < 0.17:
        said = json.dumps({f"k{n}": n for n in range(choose.choice((40, 900, 1500)))})
    else:
        said = json.dumps(context(choose, choose.choice((0, 0, 2, 10))))
    spoken = usual_text if choose.random() < 0.5 else some_text
    some = [spoken(choose) if choose.random() < 0.7 else None for _ in range(3)]
    handler = choose.choice((None, "app.Leads.score", "score", "a." + some_text(choose)))
    return (spoken(choose) * choose.choice((1, 1, 1, 40)), said, choose.choice(("info", "ERROR")), handler,
            some[0] or "acme", some[1], some[2])  # fmt: skip


def as_it_was() -> str:
    """The function of the migration that made it, for one connection."""
    first = (files("circuit_script.db.migrations") / "0012_logs.pre.sql").read_text()
    start = first.index("CREATE FUNCTION circuit.log_words(")
    return first[start : first.index("END $$;", start) + 7].replace("circuit.log_words(", "pg_temp.words_as_they_were(")


@pytest.mark.every_server
def test_the_quick_way_finds_the_same_words(database: str) -> None:
    choose = random.Random(4711)
    columns = [list(column) for column in zip(*(line(choose) for _ in range(LINES)), strict=True)]
    with psycopg.connect(database) as connection:
        connection.execute(as_it_was().encode())
        other = connection.execute(
            """
            SELECT l, o.words, n.words
            FROM unnest(%s::text[], %s::jsonb[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
                AS l (message, context, level, handler, tenant, record, person),
                pg_temp.words_as_they_were(message, context, level, handler, tenant, record, person) AS o (words),
                circuit.log_words(message, context, level, handler, tenant, record, person) AS n (words)
            WHERE o.words IS DISTINCT FROM n.words
            """,
            columns,
        ).fetchall()
    assert other == []
