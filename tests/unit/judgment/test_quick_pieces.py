"""What is looked for from a sign that must be there, or for many expressions at once, is found as without."""

from __future__ import annotations

import re
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit_script.judgment import disguise, exfil, markup, mosaic
from circuit_script.judgment.page import View
from circuit_script.judgment.rules import Together, compiled, readable, rules
from circuit_script.judgment.verdict import Finding


def said(*pieces: str, least: int = 0, most: int = 40, between: str = "") -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), min_size=least, max_size=most).map(between.join)


EXPRESSIONS = {
    "digits": r"\d{2,3}",
    "word": r"\bignore\w{0,3}\b",
    "gap": r"send.{0,4}to",
    "wide": r"忽略|\pL\pL\d",
    "end": r"[a-k]$",
}


@settings(deadline=None)
@given(said("ignore", "IGNORED", "ſend", "send", " ", "to", "1", "23", "忽略", "é", "a", "K", "."))
def test_expressions_that_are_asked_at_once_say_what_each_says(text: str) -> None:
    each = {name for name, one in EXPRESSIONS.items() if compiled(one).search(text) is not None}
    assert Together(EXPRESSIONS).of(text) == each


@settings(deadline=None)
@given(said("ab", "a", "b ", " ", "é", "日", "-", "abcabc", "xyz", least=2), st.data())
def test_a_repetition_ends_where_two_characters_differ(text: str, data: st.DataObject) -> None:
    period = data.draw(st.integers(1, len(text) - 1))
    place = data.draw(st.integers(0, len(text) - period - 1))
    same = [text[at] == text[at + period] for at in range(len(text) - period)]
    start, end = place, place
    while start > 0 and same[start - 1]:
        start -= 1
    while end < len(same) and same[end]:
        end += 1
    assert mosaic._repeated(text, place, period) == (start, end + period)


@settings(deadline=None)
@given(
    said("abcdefghij", "k l m n ", "é日", "x" * 30, "\ud800", least=10, most=60), st.integers(1, 40), st.integers(1, 60)
)
def test_what_comes_again_is_found_at_each_place_that_is_looked_at(text: str, step: int, least: int) -> None:
    found, until = [], 0
    for place in range(0, len(text) - mosaic.PIECE, step):
        again = text.find(text[place : place + mosaic.PIECE], place + 1, place + mosaic.FAR + mosaic.PIECE)
        if place >= until and again >= 0:
            start, until = mosaic._repeated(text, place, again - place)
            found += [(start, until, again - place)] if until - start >= max(least, 6 * (again - place)) else []
    with patch.object(mosaic, "FLOOD", least):
        assert [*mosaic._floods(text, step)] == found
    if mosaic.TILES is not None:
        assert mosaic.TILES.floods(text, step, mosaic.PIECE, mosaic.FAR, least) == found


TURNS = said("Q: x ", "A: y\n", "q 12:", "user : ", "Bot:", "'Bot:", "ΑΣ： ", "ας: ", "\u0345x: ", "İ: ", "://", "Q:A:")


TURN = compiled(r"(?:^|[\s\"'>])(\pL{1,10}) ?\d{0,3} ?[:：]")


@settings(deadline=None)
@given(TURNS, TURNS, st.integers(1, 8), st.integers(1, 40))
def test_labels_are_found_backwards_as_forwards(first: str, second: str, times: int, at_once: int) -> None:
    text = (first[:20] + " " + second[:20] + " ") * times
    turns = [(each[1].lower(), each.start(1), each.end()) for each in TURN.finditer(text)]
    with patch.object(mosaic, "AT_ONCE", at_once):
        assert mosaic._turns(text) == turns[: mosaic.TURNS]


def test_what_only_google_re2_takes_for_letters_are_letters() -> None:
    text = " \U00011f02: \u0378: \ud800: ²: 1: x\U00011f02 2 : \u0345: \u0346:"
    assert [each[1] for each in mosaic._turns(text)] == [each.start(1) for each in TURN.finditer(readable(text))]


NAMED = compiled(
    r"\b([a-z_$][a-z_$0-9]{0,15}(?: ?\d{1,2}| (?:one|two|three|four|five|[a-f]))?)"
    r"(?:\s{0,3}(?::?=|:|->)\s{0,3}|\s(?:is|be|are|equals|contains|says|means|as)\s{1,3}|(?: ?\d| (?:one|two"
    r"|three|four|five|[a-f]))\s{1,3})"
    r"(?:\"([^\"\n]{1,250})\"|'([^'\n]{1,250})'|“([^”\n]{1,250})”|`([^`\n]{1,250})`)"
)
PIECES = said(
    *"aBſ\u212aİ1 2$_x\n\v\"'`“”=:é",
    *(" is", " Means ", " aſ ", "  ", ":=", " -> ", " one", " Two ", " 12", "abcdefghi"),
    *('"x"', "'y'", "`z`", "“v”", " = '", "'b\n", "x" * 125, "x" * 250), most=60,
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(PIECES, st.integers(1, 40))
def test_quoted_pieces_are_found_backwards_as_forwards(text: str, at_once: int) -> None:
    pieces: dict[str, str] = {}
    found = list(NAMED.finditer(text))
    for each in found:
        name = each[1].lower().split()[-1]
        name = name if name not in pieces else f"{name}#{len(pieces)}"
        pieces.setdefault(name, each[2] or each[3] or each[4] or each[5])
    with patch.object(mosaic, "AT_ONCE", at_once):
        assert (
            mosaic._named(text)
            == mosaic._named_of(text)
            == (pieces, (found[0].start(), found[-1].end()) if found else (-1, 0))
        )


@settings(deadline=None)
@given(said("join ", "Merged ", " + ", "in order ", "answer ", "runs ", "prerun", "tell me", "x" * 60, "é ", "\n"))
def test_what_is_asked_for_near_a_join_is_found_in_many_at_once(text: str) -> None:
    around = [text[max(0, each.start() - 120) : each.end() + 160] for each in mosaic._JOIN.finditer(text)]
    assert mosaic._is_told(text) == any(mosaic._DO.search(each) is not None for each in around)


@settings(deadline=None)
@given(said("a + b", "a+", "c", "$", " ", "+ b", "ſ", "B", "+\v", "é", "ab", "\n"))
def test_the_order_of_pieces_is_told_by_what_is_added(text: str) -> None:
    pieces = {"a": "1", "b": "2", "$": "3"}
    orders = ([each.strip().lower() for each in match[1].split("+")] for match in mosaic._ORDER.finditer(text))
    asked = next((each for each in orders if pieces.keys() >= set(each)), list(pieces))
    assert mosaic._asked(text, pieces) == asked


@settings(deadline=None)
@given(said(" ", " " * 64, "\n", "\n \n", "\n\n\n\n", "x", "é", "\u3000", "\x85"))
def test_empty_places_are_found_in_their_order(text: str) -> None:
    place = 0
    places: list[tuple[int, int, int]] = []
    while (found := [at for sign in mosaic._EMPTY if (at := text.find(sign, place)) >= 0]) and len(
        places
    ) < mosaic.EMPTY:
        end = len(text) - len(text[min(found) :].lstrip())
        places.append((min(found), end, len(text)))
        place = end
    assert list(mosaic._empty_places(text)) == places


@settings(deadline=None)
@given(said("part", "A", "b", "H", "é", "teil ", " ", "1", "8", ":", "=", ",", "-", "\n", "x", most=12))
def test_a_label_has_its_letter_or_digit_and_a_sign_behind_it(text: str) -> None:
    label = mosaic._LABEL.search(text)
    if label is not None:
        nth = ord(label[1].lower()) - 96 if label[1] else int(label[2])
        assert mosaic._NEXT[nth - 1].search(text) is not None


@settings(deadline=None)
@given(
    said(
        "a: ", "B, ", "part 1 ", "teil 2:", "A", "b", "2 ", "“x” ", '"y" ', '"', "“", "”", "é", "\n", "'", " ", "x" * 14
    )
)
def test_torn_pieces_have_a_second(text: str) -> None:
    found = mosaic._torn(text)
    if mosaic.TILES is not None:
        assert mosaic.TILES.second(text) == (mosaic._SECOND.search(text) is not None)
        torn = mosaic.TILES.torn(text, mosaic.MOST, mosaic._LONGEST, mosaic._LABEL.search)
        assert torn == mosaic._pieces_of(text)
    with patch.object(mosaic, "TILES", None):
        assert mosaic._torn(text) == found
        with patch.object(mosaic, "_SECOND", re.compile("")):
            assert mosaic._torn(text) == found


SOUP = ("tok", "en ", "describing", " similarly", "Now", "two", ".", "é", *mosaic._RARE, "!-", "--", "(*", ")", "/")


@settings(deadline=None)
@given(said(*SOUP, least=60, most=200).filter(lambda text: len(text) >= mosaic.WINDOW))
def test_a_suffix_found_by_trial_has_many_signs(text: str) -> None:
    found: list[Finding] = []
    mosaic._suffix(text, found)
    dense = [sum(each in _signs() or each > "ÿ" for each in text[at:][: mosaic.WINDOW]) for at in _windows(text)]
    few = sum(each in text for each in mosaic._RARE) < 7 or max(dense) < mosaic.SIGNS
    assert bool(mosaic._signs(text) & mosaic.CODE) != few
    assert not (found and few)
    assert mosaic._densest_of(text) == (dense.index(max(dense)), max(dense), dense[-1])
    if mosaic.TILES is not None:
        assert mosaic.TILES.densest(text) == mosaic._densest_of(text)


def _windows(text: str) -> range:
    return range(len(text) - mosaic.WINDOW + 1)


@settings(deadline=None)
@given(said(*"abé日“”`:： '=\"\n", " " * 31, "\n" * 9, "\n \n", "='", " '", *SOUP, "\ud800", "x" * 50, most=90))
def test_signs_are_those_that_python_counts(text: str) -> None:
    assert mosaic._signs(text) == mosaic._signs_of(text)
    assert mosaic._has_quotes(text) == mosaic._has_quotes_of(text) == bool(mosaic._signs(text) & mosaic.QUOTES)


def _signs() -> str:
    return mosaic._SORTS[1].decode()


def test_windows_of_signs_are_counted_in_bytes_however_long_a_text_is() -> None:
    found: list[Finding] = []
    attack = rules("mosaic")["suffix"].attacks[0]
    mosaic._suffix(attack[-mosaic.WINDOW :], found)
    prose = "{[(x;y)]} = <a|b>; see the manual of it, if there is one. " * 100
    assert sum(each in _signs() for each in prose) > 256
    mosaic._suffix(prose + attack[-mosaic.WINDOW :], found)
    assert len(found) == 2
    assert found[0].evidence == found[1].evidence
    assert found[1].span == (len(prose), len(prose) + mosaic.WINDOW)


ORDERS = sorted({word for name in ("send", "fetch") for each in rules("exfil")[name].attacks for word in each.split()})


@settings(deadline=None)
@given(
    st.one_of(
        said(*map(str.lower, ORDERS), between=" "),
        st.sampled_from([each.lower() for name in ("send", "fetch") for each in rules("exfil")[name].attacks]),
    )
)
def test_an_order_has_what_stands_between_its_gaps(text: str) -> None:
    signs = exfil._SIGNS.of(text)
    for name in ("send", "fetch"):
        if exfil._PHRASES[name].search(text) is not None:
            assert exfil._NEEDS[name] - {"goal"} <= signs


@pytest.mark.parametrize("name", ["append", "send", "fetch", "relay", "render", "command", "dns"])
def test_each_order_is_looked_for_in_its_examples(name: str) -> None:
    for text in rules("exfil")[name].attacks:
        signs = exfil._SIGNS.of(text.lower())
        hinted = {each for hint, names in exfil._HINTS.items() if hint in signs for each in names}
        if exfil._PHRASES[name].search(text) is not None:
            assert name in hinted
            assert exfil._NEEDS.get(name, set()) <= signs


@settings(deadline=None)
@given(
    said("gopher", "dict", "ldap", "jar", "php", "smb", "http", "data", "file", "javascript", "://", ":", "/", " ", "x")
)
def test_a_scheme_that_does_harm_has_a_name(text: str) -> None:
    if exfil._SCHEME.search(text) is not None:
        assert any(each in text for each in ("script:", "data:", "file:", *exfil._RARE_SCHEMES))


MARKS = ("<", ">", "noscript", "NOſCRIPT", "Title", "details", "/", " ", "\n", "=", '"', "'", "alt", "data-x", "title")


@settings(deadline=None)
@given(said(*MARKS))
def test_an_element_and_an_attribute_have_their_signs(text: str) -> None:
    assert markup._OPENED.search(text) is not None or markup._ELEMENT.search(text) is None
    assert markup._GIVEN.search(text) is not None or markup._ATTRIBUTE.search(text) is None


@settings(deadline=None)
@given(said("ignore", "it's", "'", "a_b", "é", "x.y", ",", " ", "\t", "\x1c", "7", "-"))
def test_words_within_tokens_are_told_alike_in_ascii(text: str) -> None:
    assert disguise._runs(text) == disguise._WORD.findall(text)


WORDS = said("ignore", "1gnore", "it's", "it", "s", "all,", "all", "é1", "no-one", "one", between=" ")


@given(WORDS, WORDS)
def test_words_that_had_to_be_put_right_are_those_that_the_text_has_not(plain: str, loose: str) -> None:
    tokens, words = plain.split(), loose.split()
    known = {*tokens, *disguise._WORD.findall(" ".join(each for each in tokens if each not in words))}
    share = sum(each not in known for each in words) / max(len(words), 1) / disguise.SPELLED
    assert disguise._spelled(View("plain", plain, tuple, loose)) == min(share, 1.0)


@pytest.mark.parametrize("code", [*mosaic._CODE, "Return ", "HREF=", "ſelect ", "returns", "< /", "é</"])
def test_code_is_found_in_a_long_text_as_in_a_short_one(code: str) -> None:
    there = any(each in code.lower() for each in mosaic._CODE)
    assert mosaic._is_code(code) == mosaic._is_code("x" * mosaic.SHORT + code) == there
