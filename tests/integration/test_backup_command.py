"""``backup``, ``restore`` and ``forget``, as a person uses them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import typer

from circuit_script.cli import backup, forget, restore
from circuit_script.config import FILE
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.errors import BackupRefused, ForgetRefused, NoApp
from tests.road import Incoming, Road, contact, open_road
from tests.servers import Server, remove

Say = pytest.CaptureFixture[str]


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        await made.take_in(contact("c1", email="c1@example.com"), Incoming("c1", tenant="other"), contact("c2"))
        yield made


@pytest.fixture
def folder(tmp_path: Path, road: Road, monkeypatch: pytest.MonkeyPatch) -> Path:
    app = tmp_path / "app"
    app.mkdir()
    (app / FILE).write_text(f'[backup]\nto = "{tmp_path / "copies"}"\n')
    monkeypatch.setenv("DATABASE_URL", road.url)
    return app


def answer(monkeypatch: pytest.MonkeyPatch, said: bool) -> None:
    monkeypatch.setattr("typer.confirm", lambda *_, **__: said)


def test_a_copy_gets_a_name_of_its_own_in_a_folder_and_never_replaces_one(folder: Path, capsys: Say) -> None:
    backup.run(to=str(folder), folder=folder, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert Path(said["backup"]).parent == folder
    assert said["rows"]["deliveries"] == 3
    assert said["bytes"] == Path(said["backup"]).stat().st_size

    backup.run(to=str(folder / "mine.backup"), folder=folder)
    assert "mine.backup: " in (words := capsys.readouterr().out)
    assert "rows of" in words
    with pytest.raises(BackupRefused, match="--overwrite"):
        backup.run(to=str(folder / "mine.backup"), folder=folder)
    backup.run(to=str(folder / "mine.backup"), folder=folder, overwrite=True)


def test_a_restore_asks_first_and_does_what_was_answered(
    folder: Path, server: Server, capsys: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "mine.backup"
    backup.run(to=str(file), folder=folder)
    name = server.create_database(None)
    try:
        target = server.url(name)
        answer(monkeypatch, False)
        with pytest.raises(BackupRefused, match="Nobody said yes"):
            restore.run(str(file), into=target, folder=folder)
        answer(monkeypatch, True)
        restore.run(str(file), into=target, paused=True, folder=folder)
        assert f"into '{name}'" in capsys.readouterr().out
        with psycopg.connect(target) as connection:
            assert connection.execute("SELECT count(*) FROM circuit.deliveries").fetchone() == (3,)
            assert connection.execute("SELECT kind FROM circuit.pauses").fetchone() == ("everything",)
    finally:
        server.drop_database(name)


async def count(url: str) -> int:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        row = await (await connection.execute("SELECT count(*) FROM circuit.deliveries")).fetchone()
    assert row is not None
    return int(row[0])


def test_here_is_the_database_of_the_app(folder: Path, road: Road) -> None:
    file = folder / "mine.backup"
    backup.run(to=str(file), folder=folder)
    with psycopg.connect(road.url, autocommit=True) as connection:
        connection.execute("DELETE FROM circuit.deliveries WHERE tenant = 'other'")
    with pytest.raises(BackupRefused, match="is not empty"):
        restore.run(str(file), here=True, yes=True, folder=folder)
    assert asyncio.run(count(road.url)) == 2

    name = str(psycopg.conninfo.conninfo_to_dict(road.url)["dbname"])
    restore.run(str(file), here=True, replace=name, yes=True, folder=folder)

    assert asyncio.run(count(road.url)) == 3
    with pytest.raises(NoApp):
        restore.run(str(file), here=True, folder=folder / "nowhere")


@pytest.mark.slow
def test_here_is_the_embedded_server_which_is_stopped_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "mine.backup"
    backup.run(to=str(file), folder=folder)
    monkeypatch.delenv("DATABASE_URL")
    (app := tmp_path / "other").mkdir()
    (app / FILE).write_text("")
    embedded = EmbeddedPostgres(app)
    try:
        restore.run(str(file), here=True, yes=True, folder=app)
        assert not embedded.running()

        async def look() -> int:
            try:
                return await count(await embedded.start())
            finally:
                await embedded.stop()

        assert asyncio.run(look()) == 3
    finally:
        asyncio.run(remove(app))


@pytest.mark.parametrize("both", [True, False])
def test_a_restore_needs_one_target(folder: Path, both: bool) -> None:
    with pytest.raises(typer.BadParameter, match="--into"):
        restore.run("some", into="postgresql://" if both else None, here=both, folder=folder)


def test_forget_names_the_tenants_when_it_is_not_clear_whose_record_is_meant(folder: Path) -> None:
    with pytest.raises(ForgetRefused, match="acme, other"):
        forget.run(record="c1", folder=folder)
    with pytest.raises(ForgetRefused, match="Nothing is known"):
        forget.run(record="nobody", folder=folder)
    with pytest.raises(typer.BadParameter):
        forget.run(record="c1", tenant="acme", unassigned=True, folder=folder)


def test_forget_shows_what_it_would_do_asks_and_does_it(
    folder: Path, tmp_path: Path, capsys: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget.run(record="c1", tenant="acme", dry_run=True, folder=folder)
    assert "would be blanked" in capsys.readouterr().out
    answer(monkeypatch, False)
    with pytest.raises(ForgetRefused, match="Nobody said yes"):
        forget.run(record="c1", tenant="acme", folder=folder)
    capsys.readouterr()

    forget.run(record="c1", tenant="acme", yes=True, by="eva", folder=folder, as_json=True)

    said = json.loads(capsys.readouterr().out)
    assert said["blanked"]["deliveries"] == 1
    (beside,) = (tmp_path / "copies").glob("forgets*.json")
    assert said["list"] == [str(folder / ".circuit" / "forgets.json"), str(beside)]
    forget.run(record="c1", tenant="acme", yes=True, folder=folder)
    assert "Nothing of c1" in capsys.readouterr().out


def test_a_restore_reads_the_lists_beside_the_copy_and_in_the_apps_folder(
    folder: Path, tmp_path: Path, server: Server, capsys: Say
) -> None:
    file = tmp_path / "copies" / "mine.backup"
    file.parent.mkdir()
    backup.run(to=str(file), folder=folder)
    forget.run(record="c1", tenant="acme", yes=True, folder=folder)
    (folder / ".circuit" / "forgets.json").unlink()
    capsys.readouterr()
    name = server.create_database(None)
    try:
        restore.run(str(file), into=server.url(name), yes=True, folder=folder, as_json=True)
        said = json.loads(capsys.readouterr().out)
        assert [each["record"] for each in said["forgotten_again"]] == ["c1"]
    finally:
        server.drop_database(name)
