"""A platform of the release before on the schema of the next one: it starts, says so, and works; further it refuses."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from circuit_script.db.migrate import MIGRATIONS, migrate
from tests.acceptance.command import run
from tests.acceptance.platform import COMMAND, START, Platform, environment, running, write_app
from tests.acceptance.vendor import contact_stream, make_vendor, send_all

pytestmark = pytest.mark.story

TRIGGERS = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert"])
async def score(context):
    await CircuitDB.update("Contact", [{"id": contact.id, "score": 1} for contact in context.new_records])
"""
NEXT = """-- What a next release may do.
-- release: 99.0
ALTER TABLE circuit.deliveries ADD COLUMN weight int NOT NULL DEFAULT 0;
ALTER TABLE circuit.executions ADD COLUMN weight int;
ALTER TABLE circuit.releases ADD COLUMN shape jsonb NOT NULL DEFAULT '{}';
CREATE TABLE circuit.shapes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, release bigint);
SELECT circuit.of_road('circuit.shapes');
"""


def ahead(database: str, place: Path, **files: str) -> None:
    """Have a newer version's migrations applied."""
    folder = place / "migrations"
    shutil.copytree(MIGRATIONS, folder, dirs_exist_ok=True)
    for name, text in files.items():
        (folder / f"{name.removeprefix('n')}.pre.sql").write_text(text)
    asyncio.run(migrate(database, folder=folder))


def test_the_release_before_works_on_the_next_schema_and_not_on_the_one_after(app_folder: Path, database: str) -> None:
    vendor = make_vendor()
    ahead(database, app_folder, n9001_next=NEXT)
    folder = app_folder / "app"
    port = write_app(folder, TRIGGERS, public_key=vendor.public_key)
    with running(Platform(folder, port, database)) as platform:
        assert "warning: the database is of a newer version, which has applied 9001_next.pre" in platform.log()
        send_all(port, contact_stream(vendor, 5))
        platform.wait_settled()
        assert platform.rows("SELECT DISTINCT status FROM circuit.outcomes") == [("succeeded",)]
        ran = run("migrate", "--folder", str(folder), "--json", database=database)
        assert ran.code == 0, ran.err
        assert "9001_next.pre" in ran.out
        assert "warning: " in ran.err
        ran = run("doctor", "--folder", str(folder), database=database)
        assert "A newer version has applied 9001_next.pre" in ran.out
        assert platform.stop() == 0

    ahead(database, app_folder, n9002_after="-- release: 100.0\nSELECT 1;")
    command = [COMMAND, "serve", "--folder", str(folder)]
    ended = subprocess.run(command, env=environment(database), capture_output=True, text=True, timeout=START)
    assert ended.returncode == 1
    assert "99.0, 100.0: more than one release ahead of" in ended.stderr
    assert "Start the version of Circuit Script that made them" in ended.stderr
