from __future__ import annotations

from typing import Any

import pytest

from circuit_script.settings_see import LogSettings
from circuit_script.telemetry.redact import REDACTED, Redactor

CERTIFICATE = "-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("password=hunter2 next", "password=[redacted] next"),
        ('{"api_key": "a b", "n": 1}', '{"api_key": [redacted], "n": 1}'),
        ("Authorization: Bearer abcdefghijk.123", "Authorization: [redacted]"),
        ("postgresql://u:p%40w@db/x", "postgresql://u:[redacted]@db/x"),
        ("eyJhbGciOi.eyJzdWIi.sig", REDACTED),
        ("key sk-proj-0123456789abcdef", "key [redacted]"),
        ("AKIAABCDEFGHIJKLMNOP", REDACTED),
        (CERTIFICATE, REDACTED),
        ("ask ann.b+x@mail.example.com", "ask [redacted]"),
        ("ring +49 (170) 123-4567 or 512-555-0100", "ring [redacted] or [redacted]"),
        ("4111 1111 1111 1111", REDACTED),
        ("ssn 123-45-6789", "ssn [redacted]"),
        ("PASSWORD: ünïcode\u202e", "PASSWORD: [redacted]"),
    ],
)
def test_what_looks_like_a_secret_or_a_person_is_blanked(said: str, kept: str) -> None:
    assert Redactor().text(said) == kept


@pytest.mark.parametrize(
    "said",
    [
        "scored lead 4711 in 12 ms",
        "limit llm_tokens exceeded: 5 of 3",
        "at 2026-11-22 05:10:00.123 (1790000000123)",
        "01a1fb67-1800-7000-8000-012345678901",
        "4111 1111 1111 1112 is no card",
        "https://example.com/a?b=c",
    ],
)
def test_what_is_harmless_stays_as_it_is(said: str) -> None:
    assert Redactor().text(said) == said


def test_fields_go_by_their_names_at_any_depth() -> None:
    fields: dict[Any, Any] = {
        "password": "x", "apiKey": "k", "X-Api-Key": "k", "llm_tokens": 5, "max_tokens": 3, "email": "ann",
        "lead": 4711, "deep": {"list": [{"refresh_token": "t", "city": "Waco"}, "mail ann@example.com"]},
        7: b"ann@example.com", "card": 4111111111111111, "big": 10**15, "none": None, "secret": None,
    }  # fmt: skip
    assert Redactor().fields(fields) == {
        "password": REDACTED, "apiKey": REDACTED, "X-Api-Key": REDACTED, "llm_tokens": 5, "max_tokens": 3,
        "email": REDACTED, "lead": 4711,
        "deep": {"list": [{"refresh_token": REDACTED, "city": "Waco"}, "mail [redacted]"]},
        7: REDACTED, "card": REDACTED, "big": 10**15, "none": None, "secret": None,
    }  # fmt: skip
    endless: dict[str, Any] = {}
    endless["again"] = endless
    assert "…" in str(Redactor().fields(endless))


def test_an_installation_says_what_else_is_secret_and_whether_persons_are() -> None:
    wanted = LogSettings(redact_keys=("Salary",), redact_patterns=(r"X-\d+",), redact_personal=False)
    own = Redactor.of_settings(wanted)
    assert own.fields({"salary": 5, "said": "X-12 ann@example.com", "password": "p", "email": "a"}) == {
        "salary": REDACTED, "said": "[redacted] ann@example.com", "password": REDACTED, "email": "a",
    }  # fmt: skip


@pytest.mark.parametrize(
    "piece", ["a@", "1-", "password:", "://a:", "eyJaaaaa.", "eyJaaaaaa1-", '"', "a.b@c.", "-----BEGIN PRIVATE KEY"]
)
def test_a_text_of_a_megabyte_that_nearly_fits_is_looked_through_once(piece: str) -> None:
    said = piece * (200_000 // len(piece)) + " secret"
    assert Redactor().text(said).endswith(("secret", REDACTED))
