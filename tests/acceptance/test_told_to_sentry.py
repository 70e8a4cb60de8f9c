"""A handler that fails in the real platform is told to Sentry, and what it was given is not."""

from __future__ import annotations

import pytest

from tests.acceptance.platform import served
from tests.acceptance.vendor import contact_stream, make_vendor, send_all
from tests.sentry import receiving
from tests.servers import Server, until

pytestmark = pytest.mark.story

FAILING = """
from circuit_script import trigger


@trigger("Contact", ["afterInsert"])
async def score(context):
    secret = context.new_records[0]["email"]
    raise LookupError("no score for " + secret + "\\n" + repr(context.new_records))
"""


def test_a_handler_that_fails_is_told_with_its_execution_and_not_with_its_contact(embedded_server: Server) -> None:
    vendor = make_vendor()
    (sent,) = contact_stream(vendor, 1)
    with (
        receiving() as sentry,
        served(
            embedded_server, FAILING, public_key=vendor.public_key, more=f'[sentry]\ndsn = "{sentry.dsn}"\n'
        ) as platform,
    ):
        send_all(platform.port, [sent])
        until(lambda: sentry.events, "it is told")
        event = sentry.events[0]
        found = platform.rows("SELECT id::text, status FROM circuit.executions ORDER BY id LIMIT 1")
        assert (event["tags"]["execution"], event["tags"]["status"]) == found[0]
        assert event["tags"]["role"] == "worker"
        assert event["tags"]["handler"].endswith("score")
        (error,) = event["exception"]["values"]
        assert (error["type"], error["value"]) == ("LookupError", "no score for [redacted]")
        assert error["stacktrace"]["frames"][-1]["function"] == "score"
        assert platform.stop() == 0
    assert sent.contact.encode() not in sentry.raw
    assert b"@" not in sentry.raw.replace(b"circuit-script@", b"").replace(b"public@", b""), "no address of anybody"
