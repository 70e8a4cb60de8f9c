"""The database dies, restarts, is read by a slow backup, or is another server: the road goes on."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from circuit_script.cli.demo.vendor import Vendor
from tests.acceptance.platform import Platform, answers, left_behind, running, served, write_app
from tests.acceptance.promises import TALLY, hooks, kept
from tests.acceptance.vendor import Load, Receiver, contact_stream, make_vendor, receiving
from tests.servers import until

STALL = 30.0  # seconds; without a stall the same load takes about two


@pytest.fixture(scope="module")
def receiver_here() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def embedded(receiver_here: Receiver) -> Iterator[Platform]:
    """An app whose PostgreSQL is its own."""
    with served(None, TALLY, public_key=make_vendor().public_key, more=hooks(receiver_here)) as started:
        yield started


def postmaster(platform: Platform) -> int:
    """The pid of the server's first process, found through one of its backends."""
    with psycopg.connect(platform.url) as connection:
        return psutil.Process(connection.info.backend_pid).ppid()


def test_restarts_under_load_lose_and_double_nothing(
    embedded: Platform, receiver_here: Receiver, chance: random.Random
) -> None:
    """Killed first, then told to restart at once while its clients are still at work."""
    vendor = make_vendor()
    streams = [contact_stream(vendor, 8, poison=each == 0) for each in range(60)]
    with Load(embedded.port, streams) as load:
        for share, number in ((chance.uniform(0.1, 0.4), signal.SIGKILL), (chance.uniform(0.5, 0.9), signal.SIGINT)):
            load.wait_for(share)
            until(lambda: answers(embedded.port, "/readyz") == 200, "the database is there", 60)
            os.kill(postmaster(embedded), number)
        load.wait_for(1.0)
    embedded.wait_settled()
    kept(embedded, load, receiver_here, poisoned={streams[0][0].contact})
    assert embedded.log().count("PostgreSQL is gone; starting it again") == 2
    assert embedded.stop() == 0
    assert left_behind(embedded.folder) == []


def test_two_ctrl_c_end_the_embedded_server_too(embedded: Platform) -> None:
    if embedded.process.poll() is not None:
        embedded.start()
    embedded.one("worker").suspend()  # so that the first one has something to wait for
    embedded.interrupt()
    until(lambda: "again to stop at once" in embedded.log(), "it says that it waits")
    embedded.interrupt()
    assert embedded.wait(10) == 130
    until(lambda: left_behind(embedded.folder) == [], "nothing runs any more")


@pytest.mark.slow
def test_a_snapshot_held_open_stalls_nothing(
    app_folder: Path, database: str, vendor: Vendor, receiver: Receiver
) -> None:
    folder = app_folder / "app"
    port = write_app(folder, TALLY, public_key=vendor.public_key, more=hooks(receiver))
    with running(Platform(folder, port, database)) as platform, psycopg.connect(platform.url) as backup:
        backup.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        backup.execute("SELECT count(*) FROM circuit.queue")
        for _ in range(2):
            with Load(port, [contact_stream(vendor, 5) for _ in range(40)]) as load:
                load.wait_for(1.0, STALL)
            platform.wait_settled(STALL)
        seen = backup.execute("SELECT count(*) FROM circuit.deliveries").fetchone()
        assert seen == (0,), "the snapshot was held open all the time"
        kept(platform, load, receiver)


@pytest.mark.every_server
def test_the_road_runs_on_every_server(
    app_folder: Path, database: str, pooler: bool, vendor: Vendor, receiver: Receiver
) -> None:
    folder = app_folder / "app"
    top = "pooler = true" if pooler else ""
    port = write_app(folder, TALLY, public_key=vendor.public_key, top=top, more=hooks(receiver))
    streams = [contact_stream(vendor, 4, poison=each == 0) for each in range(30)]
    with running(Platform(folder, port, database)) as platform:
        with Load(port, streams) as load:
            load.wait_for(1.0)
        platform.wait_settled()
        kept(platform, load, receiver, poisoned={streams[0][0].contact})
        assert platform.stop() == 0
