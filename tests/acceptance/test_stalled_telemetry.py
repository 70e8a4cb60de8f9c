"""Telemetry that stands still does not hold up the road: its tables are locked, or nobody reads what it prints."""

from __future__ import annotations

import subprocess
import tempfile
import urllib.request
from pathlib import Path

import psycopg
import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import COMMAND, Platform, environment, running, served, write_app
from tests.acceptance.vendor import contact_stream, make_vendor, send_all
from tests.servers import TEMPLATE, Server, until

pytestmark = pytest.mark.story

TALKATIVE = """
from circuit_script import CircuitDB, log, trigger


@trigger("Contact", ["afterInsert", "afterUpdate"], batch_size=20)
async def tally(context):
    for contact in context.new_records:
        log.info("tallied", step=contact["step"], filler="x" * 2000)
        await CircuitDB.insert("Tally", {"contact": contact["id"], "step": contact["step"]})
"""
TALLIED = "SELECT count(*) FROM circuit.records WHERE object = 'Tally'"
DROPPED = """
    SELECT coalesce(sum((e.value ->> 'logs')::int), 0) FROM circuit.upkeep u, jsonb_each(u.detail) e
    WHERE u.chore = 'telemetry'
"""
LOCK = "LOCK TABLE circuit.circuit_logs, circuit.traces IN ACCESS EXCLUSIVE MODE"
EVENTS = 120


@pytest.fixture
def vendor() -> Vendor:
    return make_vendor()


def send(platform: Platform, vendor: Vendor, count: int) -> None:
    send_all(platform.port, [contact_stream(vendor, 1)[0] for _ in range(count)])


def metric(platform: Platform, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{platform.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_while_the_tables_of_log_and_traces_are_locked_events_are_handled_and_what_is_lost_is_counted(
    embedded_server: Server, vendor: Vendor
) -> None:
    with served(embedded_server, TALKATIVE, public_key=vendor.public_key) as platform:
        assert metric(platform, "circuit_dropped_total") == 0
        with psycopg.connect(platform.url) as locking:
            locking.execute(LOCK)
            for wave in (1, 2):  # the second finds all of the writer's connections waiting
                send(platform, vendor, EVENTS)
                until(lambda wave=wave: platform.value(TALLIED) == wave * EVENTS, f"wave {wave} is handled", 60)
            platform.wait_settled()
            until(lambda: platform.value(DROPPED) > 0, "what was dropped is told", 60)
            locking.rollback()
        send(platform, vendor, EVENTS)
        lines = "SELECT count(*) FROM circuit.circuit_logs WHERE message = 'tallied'"
        until(lambda: platform.value(lines) + platform.value(DROPPED) == 3 * EVENTS, "every line is stored or counted")
        assert platform.value(lines) >= EVENTS, "it goes on where it was held up"
        until(lambda: metric(platform, 'circuit_dropped_total{kind="logs"}') == platform.value(DROPPED), "it is told")
        assert metric(platform, "circuit_up") == 1
        assert platform.stop() == 0


class Unread(Platform):
    """A platform whose standard output is a pipe that nobody reads."""

    def start(self, *, wait: bool = True) -> Platform:
        with self.log_file.open("ab") as errors:
            self.process = subprocess.Popen(
                [COMMAND, "serve", "--folder", str(self.folder)],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(self.database, measured=False),
                start_new_session=True,
            )
        if wait:
            self.wait_ready()
        return self


def test_while_nobody_reads_its_standard_output_events_are_handled_and_their_lines_stored(
    embedded_server: Server, vendor: Vendor
) -> None:
    database = embedded_server.create_database(TEMPLATE)
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as parent:
        Path(parent).chmod(0o711)
        port = write_app(Path(parent) / "app", TALKATIVE, public_key=vendor.public_key)
        with running(Unread(Path(parent) / "app", port, embedded_server.url(database))) as platform:
            for wave in (1, 2):
                send(platform, vendor, EVENTS)  # each writes more than a pipe holds
                until(lambda wave=wave: platform.value(TALLIED) == wave * EVENTS, f"wave {wave} is handled", 60)
            lines = "SELECT count(*) FROM circuit.circuit_logs WHERE message = 'tallied'"
            until(lambda: platform.value(lines) == 2 * EVENTS, "every line is stored")
            assert platform.stop() == 0, "it ends in order, too"
            platform.process.stdout.close()
    embedded_server.drop_database(database)
