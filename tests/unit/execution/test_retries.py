from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from circuit_script.errors import AppError, CalloutRefused, ConfigError
from circuit_script.events.verdicts import RetryPolicy
from circuit_script.execution.authoring.handlers import Registry
from circuit_script.execution.authoring.place import Options
from circuit_script.execution.outcome import Hint
from circuit_script.execution.retries import Retries, kinds_of, retry_after


class BadRow(ValueError):
    """An author's own."""


def handler(context: Any) -> None:
    """Does nothing."""


def declared(**options: Any) -> Any:
    registry = Registry()
    registry.add_trigger(handler, "Contact", ["afterUpdate"], Options(**options))
    return registry.specs()[0]


def test_a_trigger_says_how_it_is_tried_again() -> None:
    spec = declared(
        retries=Retries(attempts=3, backoff=2.0, hold=60, permanent=(ValueError,)),
        max_age="6h",
        coalesce=True,
        batch="all-or-none",
    )

    assert spec.retries == Retries(3, 2.0, 60, ("builtins.ValueError",))
    assert (spec.max_age, spec.coalesce, spec.batch) == (21_600.0, True, "all-or-none")
    assert declared(retries={"attempts": 2}).retries == Retries(attempts=2)
    assert declared(max_age=timedelta(minutes=2)).max_age == 120.0
    assert (declared().retries, declared().max_age, declared().coalesce, declared().batch) == (
        None,
        None,
        False,
        "each",
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": 3}, "retries is 3. Write Retries"),
        ({"retries": {"attemps": 3}}, "retries has no 'attemps'. Did you mean 'attempts'"),
        ({"retries": {"attempts": 0}}, "retries.attempts is 0. Write a whole number from 1"),
        ({"retries": {"backoff": -1}}, "retries.backoff is -1. Write seconds"),
        ({"retries": {"permanent": (3,)}}, "retries.permanent is 3. Write classes of exceptions"),
        ({"retries": {"permanent": (KeyboardInterrupt,)}}, "Write classes of exceptions"),
        ({"max_age": "soon"}, "max_age is 'soon'. Write seconds"),
        ({"max_age": 0}, "max_age is 0. Write seconds"),
        ({"coalesce": "yes"}, "coalesce is 'yes'. Write True or False"),
        ({"batch": "all"}, "batch is 'all'. Write 'each' or 'all-or-none'"),
    ],
)
def test_what_cannot_be_is_refused_with_file_line_and_cure(options: dict[str, Any], said: str) -> None:
    with pytest.raises(AppError) as caught:
        declared(**options)
    assert said in str(caught.value)
    assert f"{__file__}:{handler.__code__.co_firstlineno}: handler" in str(caught.value)


def test_coalesce_is_for_updates() -> None:
    with pytest.raises(AppError, match="no updates to coalesce"):
        Registry().add_trigger(handler, "Contact", ["afterInsert"], Options(coalesce=True))


def test_retries_are_refused_where_they_are_made() -> None:
    with pytest.raises(ConfigError, match="attempts is True"):
        Retries(attempts=True)


def test_subclasses_of_a_permanent_class_are_permanent() -> None:
    policy = RetryPolicy(5, 1.0, 1.0).of(Retries(permanent=(ValueError,)).named())

    assert policy.gives_up(Hint(tuple(kinds_of(BadRow("x")))))
    assert not policy.gives_up(Hint(tuple(kinds_of(KeyError("x")))))
    assert (policy.attempts, policy.backoff, policy.hold) == (5, 1.0, 1.0)
    own = RetryPolicy(5, 1.0, 1.0).of(Retries(permanent=(BadRow,)).named())
    assert own.gives_up(Hint(tuple(kinds_of(BadRow("x")))))
    assert not own.gives_up(Hint(tuple(kinds_of(ValueError("x")))))
    for said in ("ValueError", "builtins.ValueError"):
        named = RetryPolicy(5, 1.0, 1.0).of(Retries(permanent=(said,)).named())
        assert named.gives_up(Hint(tuple(kinds_of(BadRow("x")))))
        assert not named.gives_up(Hint(tuple(kinds_of(KeyError("x")))))


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [(429, "7", 7.0), (503, "1.5", 1.5), (500, "7", 0.0), (429, None, 0.0), (429, "soon", 0.0), (429, "-3", 0.0),
     (429, "nan", 0.0), (429, "inf", 0.0), (503, "99999999999", 30 * 86_400.0)],
)  # fmt: skip
def test_a_vendors_retry_after_is_read_from_the_exception(status: int, header: str | None, seconds: float) -> None:
    request = httpx.Request("GET", "https://example.com")
    answer = httpx.Response(status, headers={} if header is None else {"retry-after": header}, request=request)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        answer.raise_for_status()
    assert retry_after(caught.value) == seconds


def test_a_retry_after_may_be_a_date() -> None:
    answer = httpx.Response(429, headers={"retry-after": format_datetime(datetime.now(UTC) + timedelta(minutes=10))})
    error = httpx.HTTPStatusError("later", request=httpx.Request("GET", "https://example.com"), response=answer)
    assert 500 < retry_after(error) <= 600
    assert retry_after(ValueError("no answer")) == 0.0
    assert retry_after(CalloutRefused("the circuit is open", retry_after=4.0)) == 4.0


def test_full_jitter_takes_any_delay_up_to_the_step_and_never_less_than_what_was_asked_for() -> None:
    policy = RetryPolicy(5, 10.0, 60.0)

    delays = [policy.delay(2) for _ in range(500)]
    assert 0.0 <= min(delays) < 3.0
    assert 17.0 < max(delays) <= 20.0
    assert all(30.0 <= policy.delay(1, 30.0) <= 40.0 for _ in range(200))
