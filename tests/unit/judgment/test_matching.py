"""Patterns are read and checked, matched by sets, and placed in the original text."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.errors import ConfigError
from circuit_script.judgment import matching
from circuit_script.judgment.matching import Matcher, Pattern, expanded, hits, matcher, read
from circuit_script.judgment.page import Page, View

WORDS = 'animal = "cat|dog"\nseen = "(?:a|the) {{animal}}"\nround = "{{round}}"\n'
GOOD = """
[[pattern]]
id = "{id}"
re = '''{re}'''
weight = {weight}
why = "An animal."
view = "{view}"
"""


def folder(tmp_path: Path, *rows: dict[str, object]) -> Path:
    (tmp_path / "_words.toml").write_text(WORDS)
    base = {"id": "override.cat", "re": r"\b{{animal}}\b", "weight": 0.5, "view": "plain"}
    (tmp_path / "some.toml").write_text("".join(GOOD.format(**(base | row)) for row in rows))
    return tmp_path


def page(text: str) -> Page:
    plain = text.casefold()
    loose = "".join(each for each in plain if each.isalnum())
    places = [at for at, each in enumerate(plain) if each.isalnum()]
    view = View("plain", plain, lambda: range(len(plain) + 1), loose, lambda: [*places, len(plain)])
    return Page(text, (view,))


def test_words_stand_in_their_places() -> None:
    words = {"animal": "cat|dog", "seen": "(?:a|the) {{animal}}"}
    assert expanded("x{{seen}}y", words) == "x(?:(?:a|the) (?:cat|dog))y"
    assert expanded("a{2,3}", words) == "a{2,3}"


@pytest.mark.parametrize("expression", ["{{bird}}", "{{animal", "{{round}}"])
def test_words_that_are_unknown_or_endless_are_refused(expression: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"some\.toml, pattern 'override\.cat'"):
        read(folder(tmp_path, {"re": expression}))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "weather.cat"}, "level"),
        ({"id": "override"}, "level"),
        ({"weight": 1.5}, "weight"),
        ({"view": "round"}, "view"),
    ],
)
def test_a_pattern_that_is_not_right_is_refused(row: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        read(folder(tmp_path, row))


def test_ids_are_unique(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two patterns"):
        read(folder(tmp_path, {}, {}))


def test_an_expression_that_re2_does_not_know_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"override\.cat"):
        Matcher(read(folder(tmp_path, {"re": r"(?=cat)"})))


def test_a_finding_has_its_place_in_the_original() -> None:
    found = Matcher([Pattern("override.cat", r"\bthe cat\b", 0.5, "A cat.")]).findings(page("Ünd THE CAT sat"))
    assert [(each.level, each.score, each.span, each.evidence, each.why, each.pattern) for each in found] == [
        ("override", 0.5, (4, 11), "the cat", "A cat.", "override.cat")
    ]


def test_expressions_that_are_not_ascii_read_all_characters() -> None:
    text = "日本 \ud800 die höhe der welt"
    found = Matcher([Pattern("polyglot.big", "höhe", 0.5, "Big.")]).findings(page(text))
    assert [text[slice(*each.span)] for each in found] == ["höhe"]


def test_each_view_has_its_own_patterns() -> None:
    matcher = Matcher(
        [
            Pattern("leak.plain", "a b", 0.5, "Plain."),
            Pattern("leak.loose", "ab", 0.5, "Loose.", view="loose"),
            Pattern("frame.raw", "A B", 0.5, "Raw.", view="raw"),
        ]
    )
    text = "x A B"
    assert matcher.hits(page(text).views[0]) == [0, 1]
    assert matcher.hits(page(text).views[0], "frame") == []
    assert matcher.raw_hits(text) == [2]
    assert {(each.pattern, text[slice(*each.span)]) for each in matcher.findings(page(text))} == {
        ("leak.plain", "A B"),
        ("leak.loose", "A B"),
        ("frame.raw", "A B"),
    }
    assert [each.pattern for each in matcher.findings(page(text), "frame")] == ["frame.raw"]


PATTERNS = [
    Pattern("leak.low", "a b", 0.3, "Low."),
    Pattern("leak.high", "b c", 0.6, "High."),
    Pattern("leak.other", "b \u00e9", 0.8, "Not in ASCII."),
    Pattern("leak.needing", "(?:a|\u00e9) d", 0.7, "Needs what is in ASCII.", needs=" d"),
    Pattern("frame.raw", "A  B", 0.9, "Raw.", view="raw"),
    Pattern("frame.raw-other", "\u00e9  B", 0.4, "Raw and not in ASCII.", view="raw"),
    Pattern("persona.none", "a", 1.0, "Of another level."),
]


@given(st.lists(st.lists(st.sampled_from("aAbBcd\u00e9 "), max_size=9).map("".join), max_size=9))
def test_of_several_texts_each_has_what_it_has_alone(texts: list[str]) -> None:
    matcher = Matcher(PATTERNS)
    plains = [text.lower() for text in texts]
    levels = {"leak", "frame"}
    alone = [
        [*matcher.hits(View("plain", plain, tuple)), *matcher.raw_hits(text)]
        for text, plain in zip(texts, plains, strict=True)
    ]
    assert matcher.highest(texts, plains, levels) == [
        max((PATTERNS[each].weight for each in some if PATTERNS[each].level in levels), default=0.0) for some in alone
    ]


def test_places_of_one_pattern_are_few() -> None:
    matcher = Matcher([Pattern("leak.a", "a", 0.5, "A."), Pattern("leak.none", "b", 0.5, "B.")])
    assert len(matcher.findings(page("a " * 1000))) == matching.PLACES


@pytest.mark.parametrize(
    "text", ["", "\x00", "\ud800", "\u202e" * 50, "a" * 1_000_000, "ignore " * 20_000, "日" * 9_000]
)
def test_any_text_can_be_read(text: str) -> None:
    for each in matching.findings(page(text)):
        assert 0 <= each.span[0] < each.span[1] <= len(text)


def test_patterns_are_read_once_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted() -> tuple[Pattern, ...]:
        calls.append(1)
        return (Pattern("leak.a", "a", 0.5, "A."),)

    monkeypatch.setattr(matching, "read", counted)
    monkeypatch.setattr(matching, "_matcher", None)
    found: list[Matcher] = []
    threads = [threading.Thread(target=lambda: found.append(matching.matcher())) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(calls) == 1
    assert len({id(each) for each in found}) == 1
    assert matching.hits(page("abc").views[0]) == [0]


def test_what_a_pattern_needs_is_in_each_of_its_attacks() -> None:
    for pattern in matcher().patterns:
        if pattern.needs:
            for attack in pattern.attacks:
                view = page(attack).views[0]
                assert pattern.id in {matcher().patterns[each].id for each in hits(view)}


def test_a_pattern_that_needs_more_is_found_only_itself(tmp_path: Path) -> None:
    folder(tmp_path, {"re": r"\bthe [a-z]{1,9} cat\b"})
    file = tmp_path / "some.toml"
    file.write_text(file.read_text() + "needs = ' cat'\n")
    some = Matcher(read(tmp_path))
    assert [each.span for each in some.findings(page("the old cat, a cat"))] == [(0, 11)]
    assert some.findings(page("the cat")) == []


@pytest.mark.parametrize("text", ["an order", "now say 'this'", '[a]{1,2} <b> "c"'])
def test_what_is_not_in_ascii_is_not_looked_for_in_ascii(text: str) -> None:
    """Each place of such a pattern has a character beyond it."""
    for pattern in matcher().patterns:
        if not pattern.looked_for.isascii():
            assert any(not each.isascii() for each in pattern.attacks)
            assert re2.search(pattern.expression, text) is None
