"""The real SDK against a stand-in for Sentry: what arrives, what must not, and a stand-in that stands still."""

import asyncio
import json
import logging
import time
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
import structlog

from circuit_script.clock import now, uuid7
from circuit_script.config import Settings
from circuit_script.effects.settle import Settled, Settlement
from circuit_script.errors import StartError
from circuit_script.settings_see import LogSettings, SentrySettings
from circuit_script.telemetry import configure_logging
from circuit_script.telemetry.sentry import AT_ONCE, Failure, init_sentry, telling
from circuit_script.wiring.reports import reported
from tests.sentry import receiving
from tests.servers import until

SECRET = "sk-live-abcdefghijklmnop1234"
MAIL = "ann@example.com"
WORD = "hunter2hunter"
TRACEBACK = f"""Traceback (most recent call last):
  File "/srv/acme/app/triggers.py", line 12, in score
    total = weigh(contact["{MAIL}"])
            ^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.11/site-packages/numpy/core.py", line 7, in weigh
ValueError: payload of {MAIL}
  File "/etc/{SECRET}.py", line 1, in the_payload
"""
STACK = """Current thread 0x00007f (most recent call first):
  File "/srv/acme/app/slow.py", line 3 in inner
  File "/srv/acme/app/slow.py", line 9 in outer
"""


@pytest.fixture
def stand_in():
    with receiving() as found:
        yield found


@pytest.fixture
def settings(stand_in, tmp_path):
    return Settings(
        folder=tmp_path,
        sentry=SentrySettings(dsn=stand_in.dsn, environment="staging"),
        log=LogSettings(redact_patterns=(r"lead-\d+",)),
    )


@pytest.fixture(autouse=True)
def quiet():
    """The platform's own lines, as in a real role."""
    before = structlog.get_config()
    configure_logging("test")
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


class Untold:
    def __str__(self):
        raise RuntimeError("whoever logs must not hear of this")

    def __repr__(self):
        return "it"


def settlement(status="failed", reason=f"ValueError: no score for {MAIL}", rows=(), detail=TRACEBACK):
    return Settlement(
        execution=uuid7(), tenant="acme", release=7, handler=3, object="Contact", event="afterInsert", records=2,
        status=status, started_at=now(), usage={}, reason=reason, detail=detail, rows=rows,
    )  # fmt: skip


def row(status, reason):
    return Settled(1, 3, 0, uuid7(), 0, "acme", "C1", status, 1, 1, reason)


async def test_a_failed_execution_arrives_with_its_place_and_names_and_without_a_payload(stand_in, settings):
    async with telling(settings, "worker") as sentry:
        tap = reported(sentry, None)
        failed = settlement()
        tap.settled(failed, "app.triggers.score")
        tap.settled(settlement(reason="ValueError: no score for lead-4711 ' 77"), "app.triggers.score")
        tap.settled(settlement("succeeded", None), "app.triggers.score")
        tap.settled(settlement("cancelled", "too old"), "app.triggers.score")
        tap.settled(settlement("partial", None, [row("succeeded", None)]), "app.triggers.score")
        tap.settled(settlement("partial", None, [row("retry", "KeyError: 'phone'")], detail=""), "app.triggers.score")
        tap.settled(
            settlement("breached", "limit wall_time exceeded: 30.00 s of 30.00 s", detail=STACK), "app.triggers.score"
        )
        for reason in (f"no score for {MAIL}, {SECRET}", f"password: {WORD}"):  # and not of an exception
            tap.settled(replace(settlement(reason=reason, detail=""), event=f"GET /x/{MAIL}/{SECRET}"), "app.ask")
    assert len(stand_in.events) == 6, "at its end everything that waited has left"
    first, second, partial, breached = stand_in.events[:4]
    assert first["tags"] == {
        "execution": str(failed.execution),
        "handler": "app.triggers.score",
        "tenant": "acme",
        "release": "7",
        "status": "failed",
        "role": "worker",
    }
    assert (first["release"], first["environment"], first["level"]) == ("7", "staging", "error")
    (error,) = first["exception"]["values"]
    assert (error["type"], error["value"]) == ("ValueError", "no score for [redacted]")
    frames = [(each["function"], each["lineno"], each["in_app"]) for each in error["stacktrace"]["frames"]]
    assert frames == [("score", 12, True), ("weigh", 7, False)], "a message that looks like a frame is none"
    assert "lead-4711" not in json.dumps(second), "what circuit.toml wants redacted is"
    assert first["fingerprint"] == second["fingerprint"] != breached["fingerprint"], "one error, not one per record"
    assert partial["exception"]["values"][0]["type"] == "KeyError"
    (error,) = breached["exception"]["values"]
    assert error["type"] == "LimitExceeded"
    assert [each["function"] for each in error["stacktrace"]["frames"]] == ["outer", "inner"]
    for hidden in (MAIL, SECRET, WORD, "the_payload", "weigh(contact", "argv", "PATH="):
        assert hidden.encode() not in stand_in.raw, hidden


async def test_errors_of_the_platform_and_of_libraries_arrive_and_what_is_no_error_does_not(stand_in, settings):
    log = structlog.get_logger()
    async with telling(settings, "gateway"):
        log.info("fine", secret=SECRET)
        log.warning("almost", secret=SECRET)
        log.error("odd", it=Untold())
        row_of_a_person = psycopg.errors.CheckViolation(
            f"check failed\nDETAIL: Failing row contains ({MAIL}, {SECRET})."
        )
        try:
            payload = SECRET  # a local variable, which must stay here
            raise row_of_a_person
        except psycopg.Error as error:
            log.exception("worker.part_ended", part="logs", body={"mail": MAIL}, api_key=payload)
            log.error("settle.refused", execution="0199", error=str(error))
        logging.getLogger("asyncio").error("Task exception was never retrieved: %s", MAIL)
        logging.getLogger("sentry_sdk.errors").error("of itself")
    log.error("after the end")
    assert [event["transaction"] for event in stand_in.events] == ["worker.part_ended", "settle.refused", "asyncio"]
    raised, refused, _ = stand_in.events
    assert raised["exception"]["values"][0]["value"] == "check failed"
    assert raised["exception"]["values"][0]["stacktrace"]["frames"][-1]["function"].startswith("test_errors")
    assert raised["extra"]["part"] == "logs"
    assert refused["tags"]["execution"] == "0199"
    assert {event["tags"]["role"] for event in stand_in.events} == {"gateway"}
    for hidden in (MAIL, SECRET, "Failing row"):
        assert hidden.encode() not in stand_in.raw, hidden


@contextmanager
def at_once():
    """Fails when what is done inside waits for the stand-in, which would be for 30 seconds."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 15


async def test_a_flood_and_a_receiver_that_stands_still_or_is_away_hold_up_nobody(stand_in, settings):
    stand_in.free.clear()
    with at_once():
        async with telling(settings, "worker") as sentry:
            for number in range(5000):
                sentry.failed(
                    Failure(
                        str(uuid4()), "h", "acme", 1, "failed", "x" * 100_000 + str(number), "\udcff\0" + TRACEBACK * 50
                    )
                )
    stand_in.free.set()
    until(lambda: stand_in.events, "the first arrives")
    assert len(stand_in.events) <= AT_ONCE + 30, "of a flood only the first are told"
    gone = settings.model_copy(update={"sentry": SentrySettings(dsn="http://public@127.0.0.1:9/1")})
    with at_once():
        async with telling(gone, "worker") as sentry:
            sentry.failed(Failure("x", "h", "acme", 1, "failed", "\udcff"))
            await asyncio.sleep(0)


async def test_what_was_not_told_of_a_flood_is_counted_in_the_next_error(stand_in, settings):
    async with telling(settings, "worker") as sentry:
        for _ in range(AT_ONCE + 50):
            sentry.failed(Failure("x", "h", "acme", 1, "failed", "boom"))

        def counted():
            sentry.failed(Failure("x", "h", "acme", 1, "failed", "boom"))
            return [event["extra"]["untold_before"] for event in stand_in.events if "extra" in event]

        until(counted, "one tells of it")
    assert counted()[0] >= 40


async def test_without_a_dsn_there_is_none_and_a_wrong_one_is_refused(settings, tmp_path):
    assert init_sentry(Settings(folder=tmp_path), "worker") is None
    assert reported(None, None) is None
    wrong = settings.model_copy(update={"sentry": SentrySettings(dsn="https://nothing")})
    with pytest.raises(StartError, match="dsn"):
        init_sentry(wrong, "worker")
