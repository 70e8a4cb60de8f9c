"""What sources say, and what files and records hold, is read without ever raising anything but a reason."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from circuit_script.agents.virtual_lpr import contact
from circuit_script.enrichment import acs, census, places
from circuit_script.enrichment.asking import NotAnswered, Reply, text
from circuit_script.enrichment.distance import miles, nearest
from circuit_script.enrichment.leads import NAMES, Address, Lead, folded, key_of, point
from circuit_script.enrichment.memory import LONGEST, Memory
from circuit_script.enrichment.people import PerMinute, person_of
from circuit_script.settings_enrichment import EnrichmentSettings

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
CENSUS = EnrichmentSettings().census


@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING) | ANYTHING)
@example({"street": "1 Main", "postal_code": 1e308})
@example({"street": "1 Main", "postal_code": 10**400, "latitude": 10**400, "longitude": 1})
@example({"street": "\ud800 Main", "postal_code": "76701", "email": "\udfff@x"})
def test_any_record_is_a_lead(raw: Any) -> None:
    lead = Lead.of(raw)
    assert lead.address is not None or lead.problem
    msgspec.json.encode([lead.id, lead.company, lead.email, lead.name])
    if lead.address is not None:
        assert len(lead.address.key) == 32


@given(st.binary(max_size=400), st.integers(1, 20))
def test_any_answer_of_the_geocoder_is_places_or_a_reason(body: bytes, asked: int) -> None:
    found: Any = {}
    reason = ""
    try:
        found = census.places(Reply(200, body), asked)
    except NotAnswered as error:
        reason = error.reason
    assert bool(found) != reason.startswith("unavailable")
    assert all(1 <= number <= asked for number in found)


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.sampled_from(
    ["Match", "Tie", "No_Match", "Exact", "-97.1,31.5", "48", "001", "000100", "x,y"]
)


@given(st.lists(st.lists(FIELD, max_size=13), max_size=8))
def test_any_rows_of_the_geocoder_are_places_on_earth(rows: list[list[str]]) -> None:
    file = io.StringIO()
    csv.writer(file).writerows([[str(number), *row] for number, row in enumerate(rows, 1)])
    try:
        found = census.places(Reply(200, file.getvalue().encode()), len(rows))
    except NotAnswered:
        return
    for place in found.values():
        if not isinstance(place, str):
            assert abs(place["latitude"]) <= 90
            assert place["tract"] is None or len(place["tract"]) == 11


def test_an_address_with_commas_quotes_and_line_ends_stays_one_row() -> None:
    lead = Lead.of({"street": '1 "Main" St, Apt\r\n5', "city": "O'Fallon", "state": "mo", "postal_code": 63366.0})
    assert lead.address == Address('1 "MAIN" ST, APT 5', "O'FALLON", "MO", "63366")
    call = census.geocode([lead.address], CENSUS)
    assert call.body is not None
    assert b'\r\n1,"1 ""MAIN"" ST, APT 5",O\'FALLON,MO,63366\r\n' in call.body
    assert "MAIN" not in repr(call)


@pytest.mark.parametrize(
    ("said", "postal_code"),
    [("76701", "76701"), ("76701-1234", "76701"), ("767011234", "76701"), (501, ""), ("0501", "00501"),
     (76701, "76701"), (76701.0, "76701"), ("7670", "07670"), (True, ""), (["76701"], "")],
)  # fmt: skip
def test_zip_codes(said: Any, postal_code: str) -> None:
    lead = Lead.of({"street": "1 Main St", "city": "Waco", "state": "TX", "postal_code": said})
    assert lead.address is not None
    assert lead.address.postal_code == postal_code


@given(ANYTHING, st.sampled_from([200, 204, 302, 400, 404, 418]))
def test_any_figures_people_and_places_are_read_or_a_reason(said: Any, status: int) -> None:
    reply = Reply(status, json.dumps(said).encode("utf-8", "replace"))
    for read in (lambda: acs.figures(reply, "48", CENSUS), lambda: person_of(reply), lambda: places.found(reply)):
        reason = "read"
        try:
            msgspec.json.encode(read())
        except NotAnswered as error:
            reason = error.reason
        assert reason


@pytest.mark.parametrize(
    ("said", "figure"),
    [("61234", 61234), ("-666666666", None), ("-999999999.0", None), (-222222222, None), (None, None), ("2.5", 2.5),
     ("250001", 250001), ("0", 0), ("-5", -5), ("nan", None), ("inf", None), ("x", None), (True, None), ([1], None),
     ("9" * 400, None), ("1_000", 1000)],
)  # fmt: skip
def test_figures(said: Any, figure: float | None) -> None:
    assert acs.figure(said) == figure


def test_figures_come_in_the_order_that_was_asked_for_whatever_the_columns_are() -> None:
    settings = CENSUS.model_copy(update={"variables": {"b": "B1_001E", "a": "A1_001E"}})
    rows = [["county", "A1_001E", "tract", "B1_001E", "state"], ["001", "1", "000100", "2", "48"], ["short"]]
    assert acs.figures(Reply(200, json.dumps(rows).encode()), "48", settings) == {"48001000100": [2, 1]}
    assert acs.figures(Reply(204, b""), "72", settings) == {}


@given(st.text())
def test_foreign_texts_are_short_plain_and_possible_in_the_database(said: str) -> None:
    kept = text(said, 50)
    assert kept is None or (0 < len(kept) <= 50 and kept.isprintable() and "\0" not in kept)
    msgspec.json.encode(kept)


@pytest.mark.parametrize("alike", [("Café  Zoë", "CAFE ZOE"), ("1 Main St.", "1 main st"), ("O-K, Inc", "o k inc")])
def test_the_same_thing_is_found_however_it_is_written(alike: tuple[str, str]) -> None:
    assert folded(alike[0]) == folded(alike[1])


def test_keys_keep_parts_apart() -> None:
    assert key_of("a", "bc") != key_of("ab", "c") != key_of("abc")
    assert key_of("1:a") != key_of("1", "a")


@given(*[st.floats(-90, 90), st.floats(-180, 180)] * 2)
def test_distances_are_those_of_the_lead_score(lat1: float, lon1: float, lat2: float, lon2: float) -> None:
    far = miles((lat1, lon1), (lat2, lon2))
    assert far == pytest.approx(contact.haversine((lat1, lon1), (lat2, lon2)))
    assert 0 <= far <= math.pi * 3958.77


def test_the_nearest_of_several_counts() -> None:
    assert nearest((31.5493, -97.1467), [(32.7767, -96.797), (31.5493, -97.1467)]) == (1, 0.0)
    assert nearest((31.5493, -97.1467), [(32.7767, -96.797)])[1] == pytest.approx(87.2, abs=0.5)


@pytest.mark.parametrize("where", [(91, 0), (0, 181), (0, 0), (None, 1), ("x", 1), (float("nan"), 1), (True, False)])
def test_what_is_no_place_on_earth_is_none(where: tuple[Any, Any]) -> None:
    assert point(*where) is None


def test_memory_forgets_what_is_over_and_what_was_not_used_for_longest() -> None:
    now = 100.0
    memory: Memory[str] = Memory(2, clock=lambda: now)
    memory.put("a", 1, 10)
    memory.put("b", None, None)
    assert (memory.get("a"), memory.get("b", "?")) == (1, None)
    memory.get("a")
    memory.put("c", 3, 10)
    assert (memory.get("a"), memory.get("b", "?"), len(memory)) == (1, "?", 2)
    now += 10
    assert (memory.get("a"), memory.get("c"), len(memory)) == (None, None, 0)
    memory.put("d", 4, None)
    now += LONGEST
    assert memory.get("d") is None


def test_people_are_asked_for_no_faster_than_said() -> None:
    now = 0.0
    pace = PerMinute(2, clock=lambda: now)
    assert [pace.take("a"), pace.take("a"), pace.take("a"), pace.take("b")] == [True, True, False, True]
    now = 60.0
    assert pace.take("a")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"locations": {"a": [[91, 0]]}}, r"is no \[latitude, longitude\]"),
        ({"census": {"variables": {"income": "B19013_001E&key=x"}}}, "is no variable like"),
        ({"census": {"variables": {"reasons": "B19013_001E"}}}, "means something else"),
        ({"census": {"variables": {f"a{n}": f"B19013_{n:03}E" for n in range(51)}}}, "50 variables at most"),
        ({"census": {"url": "ftp://x"}}, "String should match"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EnrichmentSettings.model_validate(wrong)
