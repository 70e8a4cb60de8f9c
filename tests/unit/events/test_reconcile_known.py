"""What a row of a vendor is, beside what is known of its record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from circuit_script.events.reconcile.known import Known, Verdict, differs, judge, moment_of

STAMP = "dateUpdated"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LONG_AGO = NOON - timedelta(hours=2)


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def row(changed: datetime = NOON - timedelta(minutes=10), **fields: Any) -> dict[str, Any]:
    return {"id": "c1", STAMP: text(changed), **fields}


def known(**fields: Any) -> Known:
    return Known(fields=fields, last=7, heard_at=LONG_AGO)


def verdict(found: dict[str, Any], seen: Known, *, sure: bool = False) -> Verdict:
    return judge(found, seen, STAMP, NOON, sure=sure)


@pytest.mark.parametrize(
    ("value", "before"),
    [
        ("Anna", "Anna"),
        ("7", 7),
        (None, ""),
        ([], None),
        ("2026-11-22T10:00:00.000Z", "2026-11-22T11:00:00+01:00"),
        ({"a": [1]}, {"a": [1]}),
    ],
)
def test_equal_in_another_writing_is_no_news(value: Any, before: Any) -> None:
    assert verdict(row(field=value), known(field=before)) is Verdict.KNOWN


@pytest.mark.parametrize(
    ("value", "before"), [("Anna", "anna"), ("", "Anna"), (None, "Anna"), (8, 7), (["a", "b"], ["b", "a"])]
)
def test_another_value_is_a_change(value: Any, before: Any) -> None:
    assert verdict(row(field=value), known(field=before)) is Verdict.CHANGED


def test_a_record_that_is_not_known_is_new() -> None:
    assert verdict(row(firstName="Anna"), Known()) is Verdict.NEW


def test_fields_of_which_nothing_is_known_are_news_unless_a_webhook_told_after_the_change() -> None:
    seen = known(firstName="Anna")
    assert verdict(row(firstName="Anna", source="web"), seen) is Verdict.CHANGED
    seen.heard_at = NOON - timedelta(minutes=9)
    assert verdict(row(firstName="Anna", source="web"), seen) is Verdict.KNOWN
    assert verdict(row(firstName="Bo", source="web"), seen) is Verdict.CHANGED


def test_a_row_older_than_what_was_told_is_no_news() -> None:
    assert verdict(row(firstName="Bo"), known(firstName="Anna", dateUpdated=text(NOON))) is Verdict.KNOWN
    assert verdict(row(firstName="Bo"), known(firstName="Anna", dateUpdated=text(LONG_AGO))) is Verdict.CHANGED


def test_after_fresh_news_a_search_is_read_again_and_a_reading_by_id_is_sure() -> None:
    seen = known(firstName="Anna")
    seen.heard_at = NOON - timedelta(seconds=30)
    assert verdict(row(firstName="Bo"), seen) is Verdict.AGAIN
    assert verdict(row(firstName="Bo"), seen, sure=True) is Verdict.CHANGED
    seen.heard_at = NOON + timedelta(milliseconds=1)
    assert verdict(row(firstName="Bo"), seen, sure=True) is Verdict.AGAIN
    assert verdict(row(firstName="Anna"), seen) is Verdict.KNOWN


def test_what_we_write_meanwhile_is_not_looked_at_and_what_we_delete_not_at_all() -> None:
    seen = known(firstName="Anna", score=1)
    seen.writing = {"score"}
    assert verdict(row(firstName="Anna", score=9), seen) is Verdict.KNOWN
    assert verdict(row(firstName="Bo", score=9), seen) is Verdict.CHANGED
    assert verdict(row(firstName="Bo"), Known(fields={"firstName": "Anna"}, deleting=True)) is Verdict.KNOWN


def test_a_record_that_was_deleted_is_new_only_where_it_is_there_by_its_id() -> None:
    gone = Known(gone=True, last=7, heard_at=LONG_AGO)
    assert verdict(row(firstName="Anna"), gone) is Verdict.AGAIN
    assert verdict(row(firstName="Anna"), gone, sure=True) is Verdict.NEW


def test_custom_fields_are_known_by_their_own_names_too() -> None:
    entries = [{"id": "cf1", "value": "x"}, {"id": "cf2", "value": 2}]
    assert not differs({"customFields": entries}, {"cf1": "x", "customFields": [entries[1]]}, ())
    assert differs({"customFields": entries}, {"cf1": "y", "customFields": [entries[1]]}, ())
    assert differs({"customFields": entries}, {"cf1": "x"}, ())


def test_a_moment_is_read_in_utc() -> None:
    assert moment_of("2026-11-22T13:00:00+01:00") == NOON
    assert moment_of("soon") is None
