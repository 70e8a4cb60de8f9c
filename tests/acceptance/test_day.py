"""A day's mischief in ten minutes: one tenant behaves, another does its worst all the time. Nothing may creep."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import psutil
import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import Platform, family, served
from tests.acceptance.test_bad_handlers import CASES, TRIGGERS
from tests.acceptance.vendor import contact_stream, make_vendor, receiving, send_all
from tests.servers import Server, until

SPANS = 10
SPAN = float(os.environ.get("CIRCUIT_TEST_SPAN", "60"))  # seconds of each
GOOD_AT_ONCE = 40
ROUND = 1.0  # seconds between two that do their worst: each takes a child for up to 0.6, and there are two
TENANTS = '[tenants]\ngood = { gohighlevel = ["loc-good"] }\nbad = { gohighlevel = ["loc-bad"] }\n'
WARM_UP = 2  # spans
AT_REST = 3 + 2 * 2 + 1  # worker, zygote and what outlives it; two children that wait for each tenant; a fresh one
OF_A_CHILD = 9  # descriptors that the worker holds of each, at most

TALLIED = "SELECT count(*) FROM circuit.records WHERE tenant = 'good' AND object = 'Tally'"
LATENCIES = """
SELECT extract(epoch FROM x.ended_at - d.received_at) * 1000
FROM circuit.outcomes o JOIN circuit.executions x ON x.id = o.execution JOIN circuit.deliveries d ON d.id = o.delivery
WHERE o.tenant = 'good' AND o.status = 'succeeded' AND d.received_at >= to_timestamp(%s)
"""
LIMITS = """
SELECT DISTINCT split_part(split_part(reason, 'limit ', 2), ' ', 1) FROM circuit.executions WHERE status = 'breached'
"""


@dataclass(frozen=True)
class Span:
    """What was seen at the end of one span, when nothing ran. Memory in MB, latency in milliseconds."""

    memory: float
    descriptors: int
    processes: int
    latency: float


@pytest.fixture
def vendors() -> tuple[Vendor, Vendor]:
    """Of the tenant that behaves, and of the other; they sign with one key."""
    return make_vendor(location="loc-good"), make_vendor(location="loc-bad")


@pytest.fixture
def platform(embedded_server: Server, vendors: tuple[Vendor, Vendor]) -> Iterator[Platform]:
    with receiving() as receiver:
        triggers = TRIGGERS.replace("@receiver@", receiver.address)
        worker = "lease = 1\nattempts = 1\nbackoff = 0.05"
        key = vendors[0].public_key
        with served(embedded_server, triggers, public_key=key, worker=worker, more=MORE) as started:
            yield started


MORE = f'{TENANTS}[callouts]\nprivate = ["127.0.0.1"]\n'


@pytest.mark.slow
def test_memory_children_descriptors_and_the_good_tenants_latency_stay_flat(
    platform: Platform, vendors: tuple[Vendor, Vendor]
) -> None:
    mischief = itertools.cycle(CASES)
    sent, spans = 0, []
    for _ in range(SPANS):
        began = time.time()
        for number in range(int(SPAN / ROUND)):
            time.sleep(max(0.0, began + number * ROUND - time.time()))  # a steady load, not all that fits
            sent += _mix(platform, vendors, next(mischief))
        platform.wait_settled()
        spans.append(_look(platform, began))

    assert platform.value(TALLIED) == sent, "every record of the tenant that behaves was handled, once"
    breached = {limit for (limit,) in platform.rows(LIMITS)}
    assert {"wall_time", "memory", "log_bytes", "callouts"} <= breached, "the other one did its worst"
    _must_be_flat(spans)


def _mix(platform: Platform, vendors: tuple[Vendor, Vendor], does: str) -> int:
    good, bad = vendors
    deliveries = [contact_stream(good, 1)[0] for _ in range(GOOD_AT_ONCE)]
    send_all(platform.port, [*deliveries, contact_stream(bad, 1, does=does)[0]])
    return len(deliveries)


def _look(platform: Platform, since: float) -> Span:
    worker = platform.one("worker")
    until(
        lambda: len(family(worker.pid)) <= AT_REST, "only the zygote, what outlives it, and its children are left", 20
    )
    latencies = sorted(float(value) for (value,) in platform.rows(LATENCIES, since))
    return Span(
        memory=_pss(worker),
        descriptors=worker.num_fds(),
        processes=len(family(worker.pid)),
        latency=latencies[int(len(latencies) * 0.95)],
    )


def _pss(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 1e6


def _must_be_flat(spans: Sequence[Span]) -> None:
    settled = spans[WARM_UP:]
    first, last = settled[: len(settled) // 2], settled[len(settled) // 2 :]
    shown = "\n".join(map(str, spans))
    held = [each.descriptors - OF_A_CHILD * each.processes for each in settled]
    assert max(held[len(first) :]) <= max(held[: len(first)]) + OF_A_CHILD + 4, shown
    assert max(each.processes for each in last) <= max(each.processes for each in first) + 1, shown
    assert median(each.memory for each in last) <= median(each.memory for each in first) * 1.05 + 4, shown
    # What creeps slows every span down; what else the machine does, some of them. So the quickest of each half count.
    assert min(each.latency for each in last) <= min(each.latency for each in first) * 1.5 + 20, shown
