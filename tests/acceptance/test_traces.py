"""One trace through everything: a sender's, our gateway, a child, its libraries, a vendor, a collector, a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.acceptance.command import run
from tests.acceptance.platform import served
from tests.acceptance.vendor import contact_stream, make_vendor, send_all
from tests.otlp_collector import Collector
from tests.servers import Server, until

pytestmark = pytest.mark.story

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRIGGERS = """
import urllib.request

from circuit_script import CircuitDB, http, log, trigger


@trigger("Contact", ["afterInsert"])
async def look(context):
    for contact in context.new_records:
        await CircuitDB.query("Contact", {"email": "ada@example.com"})
        await http.get("@receiver@/ours?token=secret")
        urllib.request.urlopen("@receiver@/theirs?token=secret").close()
        log.info("looked")
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_trace_is_followed_from_its_sender_to_a_collector(embedded_server: Server, collector: Collector) -> None:
    vendor = make_vendor()
    url = collector.url.removesuffix("/v1/traces")
    with served(
        embedded_server,
        TRIGGERS.replace("@receiver@", url),
        public_key=vendor.public_key,
        more=f'[traces]\notlp_url = "{collector.url}"\nservice = "acme"\n[callouts]\nprivate = ["127.0.0.1"]\n',
    ) as platform:
        (first,) = contact_stream(vendor, 1)
        headers = {**first.signed.headers, "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        send_all(platform.port, [replace(first, signed=replace(first.signed, headers=headers))])
        platform.wait_settled()
        until(lambda: bool(platform.rows("SELECT FROM circuit.traces")), "its trace is stored")
        shown = run("trace", TRACE, folder=platform.folder, database=platform.database)
        (document,) = json.loads(run("trace", TRACE, "--json", folder=platform.folder, database=platform.database).out)
        lines = platform.rows("SELECT trace FROM circuit.circuit_logs WHERE message = 'looked'")
        until(lambda: bool(collector.spans), "it is exported")
        assert platform.stop() == 0

    assert shown.code == 0, shown.err
    assert "█" in shown.out
    steps = {each["name"]: each for each in document["spans"]}
    assert steps["callout"]["attributes"]["url"] == f"{url}/ours"
    assert steps["direct request"]["attributes"]["url"] == f"{url}/theirs"
    assert collector.heard == [f"00-{TRACE}-{steps[name]['id']}-01" for name in ("callout", "direct request")]
    assert {each.span_id.hex() for each in collector.spans} == {each["id"] for each in document["spans"]}
    assert {each["service.name"] for each in collector.resources} == {"acme"}
    assert lines == [(TRACE,)]
    assert "secret" not in f"{shown.out}{document}{collector.spans}"
