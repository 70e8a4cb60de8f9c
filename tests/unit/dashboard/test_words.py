"""Text of strangers, numbers and moments, as pages write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.dashboard import words
from circuit_script.dashboard.sign_in import safe_place

ANY = st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=0x10FFFF, categories=None), max_size=200)


@given(ANY)
def test_what_is_shown_can_be_seen_and_sent(text: str) -> None:
    shown = words.visible(text)
    shown.encode()  # no lone surrogate is left
    assert not any(sign in shown for sign in "\u202e\u2066\u200b\ufeff\0\x1b\u2028")
    assert words.visible(shown) == shown
    assert len(words.short(text, 40)) <= 40 * 10


@given(st.dictionaries(ANY, ANY | st.integers() | st.none(), max_size=5))
def test_what_is_edited_is_seen_and_comes_back_as_it_was(fields: dict[str, object]) -> None:
    text = words.editable(fields)
    assert words.visible(text) == text
    assert json.loads(text) == fields


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'"\\ud800"', b"null", b"1e999"])
def test_any_bytes_are_shown(raw: bytes) -> None:
    words.visible(words.payload_text(raw)).encode()


def test_numbers_money_and_spans_are_short() -> None:
    assert [words.number(each) for each in (None, 0, 1234567, 25.6, 0.004, Decimal("0.31"))] == [
        "–", "0", "1,234,567", "25.6", "0.004", "0.31",
    ]  # fmt: skip
    assert [words.money(each) for each in (0, Decimal("0.0042"), 12)] == ["$0.00", "$0.0042", "$12.00"]
    assert [words.span(each) for each in (None, -1, 0.00084, 0.012, 4.2, 60, 180, 7200, 500_000)] == [
        "–", "0 µs", "840 µs", "12 ms", "4.2 s", "60 s", "3 min", "2 h", "6 d",
    ]  # fmt: skip
    assert [words.percent(each) for each in (None, 0.0, 0.0313, 1.0)] == ["–", "0 %", "3.1 %", "100 %"]

    used = [("memory", 128 * 2**20), ("log_bytes", 0), ("memory", 150_000), ("cpu_time", 0.0), ("wall_time", 0.0052)]
    assert [words.measure(*each) for each in [*used, ("llm_cost", 1.0), ("dml_rows", 10_000)]] == [
        "128 MB", "0 KB", "0.1 MB", "0 s", "5 ms", "$1.00", "10,000",
    ]  # fmt: skip
    assert [words.ceiling_of(each) for each in (0, 1, 3, 11, 20, 223, 5001)] == [1, 1, 5, 20, 20, 500, 10_000]


def test_moments_are_in_the_viewers_zone_and_unknown_zones_are_utc() -> None:
    at = datetime(2026, 6, 1, 22, 30, tzinfo=UTC)
    assert words.clock_text(at, words.zone_of("Asia/Tokyo"), at) == "07:30:00"
    assert words.clock_text(at, words.zone_of("UTC"), datetime(2026, 6, 3, tzinfo=UTC)) == "1 Jun 22:30:00"
    assert words.exact_text(at, words.zone_of("Europe/Berlin")).startswith(
        "2026-06-02 00:30:00.000+02:00 (Europe/Berlin)"
    )
    for odd in ("", "../../etc/passwd", "Mars/Base", "\0", "x" * 5000, "Europe/Berlin\n"):
        assert words.zone_of(odd).key == "UTC"


@pytest.mark.parametrize(
    "place", ["", "x", "//e", "/\\e", "http://e", "/\x00", "/é", "javascript:1", "/sign-in", "/" * 3]
)
def test_a_place_elsewhere_is_the_overview(place: str) -> None:
    assert safe_place(place) == "/"


def test_a_place_of_ours_stays() -> None:
    assert safe_place("/executions?status=trouble&tenant=acme") == "/executions?status=trouble&tenant=acme"
