"""Handlers that do what they must not: the record that does it ends as it should, its neighbours succeed, and the
next execution finds a clean process."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import Platform, family, served
from tests.acceptance.vendor import Sent, contact_stream, make_vendor, receiving, send_all
from tests.servers import Server, until

BATCH = 60
FULL_BATCH = 200

# Every record is counted first: a record that then misbehaves must not leave its count behind.
TRIGGERS = '''
import asyncio
import os
import socket
import threading
import time

from circuit_script import CircuitDB, CircuitTrigger, Limits, http, trigger

RECEIVER = "@receiver@"
SMALL = Limits(wall_time=0.6, memory=48 * 1024 * 1024, callouts=3, log_bytes=200_000)


async def spin():
    while True:
        pass


async def sleep():
    await asyncio.sleep(60)


async def block():
    time.sleep(60)


async def allocate():
    hoard = []
    while True:
        hoard.append(bytearray(1024 * 1024))


async def exit_at_once():
    os._exit(3)


async def system_exit():
    raise SystemExit("enough")


async def swallow():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


async def fork():
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)


async def fork_and_return():
    os.fork()


async def close_descriptors():
    os.closerange(0, 1024)


async def print_megabytes():
    for _ in range(3000):
        print("x" * 1000)
    await CircuitDB.get("Tally", "none")


async def start_threads():
    for _ in range(5):
        threading.Thread(target=time.sleep, args=(60,), daemon=False).start()


async def call_slow_server():
    await http.get(RECEIVER + "/slow")


async def call_slow_server_briefly():
    await http.get(RECEIVER + "/slow", timeout=0.1)


async def connect_often():
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", int(RECEIVER.rpartition(":")[2]))):
            pass


async def raise_an_error():
    raise ValueError("not this one")


class Mixed(CircuitTrigger):
    @trigger("Contact", ["afterInsert"], limits=SMALL)
    async def count(self, context):
        for contact in context.new_records:
            async with context.record(contact):
                await CircuitDB.insert("Tally", {"contactId": contact["id"]})
                if does := contact.get("does"):
                    await globals()[does]()


class Look(CircuitTrigger):
    @trigger("Contact", ["afterUpdate"], limits=SMALL)
    async def report(self, context):
        """What this process finds around itself."""
        for contact in context.new_records:
            await CircuitDB.insert("State", {
                "contactId": contact["id"],
                "threads": threading.active_count(),
                "descriptors": len(os.listdir("/proc/self/fd")),
                "children": open(f"/proc/self/task/{os.getpid()}/children").read().split(),
                "tasks": len(asyncio.all_tasks()),
            })
'''


@dataclass(frozen=True)
class Ends:
    """How a record ends: dead with these words in its reason, or succeeded."""

    status: str
    words: str = ""


CASES = {
    "spin": Ends("dead", "wall_time"),
    "sleep": Ends("dead", "wall_time"),
    "block": Ends("dead", "wall_time"),
    "swallow": Ends("dead", "wall_time"),
    "allocate": Ends(
        "dead", "emory"
    ),  # the breach that the worker sees, or MemoryError in the block: whichever is first
    "exit_at_once": Ends("dead", "3"),
    "system_exit": Ends("dead", "SystemExit: enough"),
    "fork": Ends("succeeded"),
    "fork_and_return": Ends("succeeded"),
    "close_descriptors": Ends("dead", "closed its connection"),
    "print_megabytes": Ends("dead", "log_bytes"),
    "start_threads": Ends("succeeded"),
    "call_slow_server": Ends("dead", "wall_time"),
    "call_slow_server_briefly": Ends("dead", "Timeout"),
    "connect_often": Ends("dead", "callouts"),
    "raise_an_error": Ends("dead", "ValueError: not this one"),
}


@pytest.fixture(scope="module")
def vendor_here() -> Vendor:
    return make_vendor()


@pytest.fixture(scope="module")
def platform(embedded_server: Server, vendor_here: Vendor) -> Iterator[Platform]:
    with receiving() as receiver:
        triggers = TRIGGERS.replace("@receiver@", receiver.address)
        worker = "lease = 1\nattempts = 1\nbackoff = 0.05"
        here = '[callouts]\nprivate = ["127.0.0.1"]'
        key = vendor_here.public_key
        with served(embedded_server, triggers, public_key=key, worker=worker, more=here) as started:
            yield started


def state(platform: Platform, vendor: Vendor) -> dict[str, object]:
    """What an execution finds in its process now."""
    _, update = contact_stream(vendor, 2)
    send_all(platform.port, [update])
    platform.wait_settled()
    found: dict[str, object] = platform.value(
        "SELECT data - 'contactId' FROM circuit.records WHERE object = 'State' AND contact = %s", update.contact
    )
    return found


def send_as_one_batch(platform: Platform, deliveries: list[Sent]) -> None:
    """The worker stands still while they come in, and then finds them all together."""
    worker = platform.one("worker")
    worker.send_signal(signal.SIGSTOP)
    try:
        send_all(platform.port, deliveries)
    finally:
        worker.send_signal(signal.SIGCONT)
    platform.wait_settled()


# Of the executions since this record arrived: the first one, with which everything began.
LARGEST = """
SELECT max(x.records) FROM circuit.executions x
WHERE x.started_at >= (SELECT d.received_at FROM circuit.events e JOIN circuit.deliveries d ON d.id = e.delivery
                       WHERE e.record = %s)
"""
ENDS = """
SELECT o.status, coalesce(l.reason, '') FROM circuit.events e
JOIN circuit.outcomes o USING (delivery, ordinal)
LEFT JOIN circuit.dead_letters l USING (delivery, ordinal)
WHERE e.record = %s AND o.status <> 'retry'
"""


@pytest.mark.parametrize("does", CASES)
def test_a_bad_record_ends_as_it_should_and_fails_alone(platform: Platform, vendor_here: Vendor, does: str) -> None:
    clean = state(platform, vendor_here)
    size = FULL_BATCH if does == "spin" else BATCH
    contacts = [contact_stream(vendor_here, 1)[0] for _ in range(size - 1)]
    bad = contact_stream(vendor_here, 1, does=does)[0]
    send_as_one_batch(platform, [*contacts[: size // 3], bad, *contacts[size // 3 :]])

    assert platform.value(LARGEST, contacts[0].contact) == size, "they were one batch"
    [(status, reason)] = platform.rows(ENDS, bad.contact)
    assert (status, CASES[does].words in reason) == (CASES[does].status, True), f"{status}: {reason}"
    wanted = {contact.contact for contact in contacts} | ({bad.contact} if status == "succeeded" else set())
    mine = [*wanted, bad.contact]
    tallied = platform.rows("SELECT contact FROM circuit.records WHERE object = 'Tally' AND contact = ANY(%s)", mine)
    assert Counter(contact for (contact,) in tallied) == dict.fromkeys(wanted, 1)

    assert state(platform, vendor_here) == clean
    worker = platform.one("worker")
    until(lambda: len(family(worker.pid)) <= 2 + 3, "only the zygote and its children are left", 10)
