"""A secret that the process has read leaves it in no line, whatever stands around it."""

from __future__ import annotations

import base64
import json
import secrets as random
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.telemetry import redact
from circuit_script.telemetry.redact import FEW, LONG, REDACTED, SHORTEST_KNOWN, Known, Redactor

SECRETS = st.text('abcXYZ019_-/+ ="é', min_size=SHORTEST_KNOWN, max_size=60).filter(lambda text: text.strip() == text)


@given(st.lists(SECRETS, min_size=1, max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_none_of_many_is_left_in_a_text(secrets: list[str], before: str, after: str) -> None:
    known = Known()
    for each in secrets:
        known.learn(each)
    for each in secrets:
        for form in (each, quote(each, safe=""), json.dumps(each)[1:-1]):
            assert form not in known.without(f"{before}{form}{after}").replace(REDACTED, "\0")


@pytest.mark.parametrize("many", [1, FEW, FEW + 1, 500])
def test_it_is_found_at_each_place_of_a_line(many: int) -> None:
    known = Known()
    tokens = [random.token_urlsafe(24) for _ in range(many)]
    for each in tokens:
        known.learn(each)
    for place in range(2 * LONG):
        said = f"{'.' * place}{tokens[-1]}{'.' * 3}"
        assert known.without(said) == f"{'.' * place}{REDACTED}..."


def test_lines_fields_and_errors_lose_it() -> None:
    known = Known()
    redactor = Redactor(known=known)
    token = "correct horse battery"
    assert redactor.text(f"it said {token}") == f"it said {token}"
    known.learn(token)
    known.learn("hunter22")
    assert redactor.text(f"it said {token}") == f"it said {REDACTED}"
    assert redactor.fields({"a": [{"b": token}], "c": "hunter22"}) == {"a": [{"b": REDACTED}], "c": REDACTED}
    assert redactor.value("x" + "hunter22") == "x" + REDACTED


def test_what_is_short_is_left_alone() -> None:
    known = Known()
    known.learn("ab")
    assert known.without("abc") == "abc"


def test_each_line_of_a_key_is_known() -> None:
    inner = base64.b64encode(bytes(range(96))).decode()
    pem = f"-----BEGIN THING-----\n{inner[:64]}\n{inner[64:]}\n-----END THING-----\n"
    known = Known()
    known.learn(pem)
    assert known.without(f"x {inner[64:]} y") == f"x {REDACTED} y"
    assert known.without("-----BEGIN THING-----") == "-----BEGIN THING-----"


def test_it_knows_a_bounded_number_and_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "MOST_KNOWN", 50)
    known = Known()
    tokens = [random.token_hex(16) for _ in range(200)]
    for each in tokens:
        known.learn(each)
    assert known.without(tokens[-1]) == REDACTED
    assert known.without(tokens[0]) == tokens[0]
    assert len(known._all) <= 51
