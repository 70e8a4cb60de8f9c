"""``circuit-script people``: what a person on the host does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from circuit_script.access import Refused, SignedIn, person_of_token, redeem, sign_in
from circuit_script.cli import people
from circuit_script.db.pool import open_connection
from circuit_script.errors import PeopleRefused

GOOD = "correct horse battery"
APP = """
[tenants.acme]
[tenants.globex]
[dashboard]
url = "https://circuit.example.com"
"""


@pytest.fixture
def folder(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATABASE_URL", database)
    (tmp_path / "circuit.toml").write_text(APP)
    return tmp_path


def run(folder: Path, *arguments: str, typed: str | None = None, fails: bool = False) -> Result:
    result = CliRunner().invoke(people.app, [*arguments, "--folder", str(folder)], input=typed)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert bool(result.exit_code) is fails, result.output
    return result


def tried(database: str, password: str) -> SignedIn | Refused:
    async def go() -> SignedIn | Refused:
        connection = await open_connection(database)
        try:
            return await sign_in(connection, "ann@example.com", password, "10.0.0.1")
        finally:
            await connection.close()

    return asyncio.run(go())


def test_an_account_is_made_changed_and_removed(folder: Path, database: str) -> None:
    assert "nobody yet" in run(folder, "list").output
    added = run(
        folder, "add", "Ann@example.com", "--role", "operator", "--tenant", "acme", "--password", typed=f"{GOOD}\n"
    )
    assert "operator of acme" in added.output
    assert GOOD not in added.output
    found = tried(database, GOOD)
    assert isinstance(found, SignedIn)
    run(folder, "grant", "ann@example.com", "viewer", "--tenant", "*")
    (known,) = json.loads(run(folder, "list", "--json").stdout)
    assert known["roles"] == {"*": "viewer", "acme": "operator"}
    assert (known["has_password"], known["sessions"]) == (True, 0)
    run(folder, "revoke", "ann@example.com", "--tenant", "acme")
    assert "viewer of all tenants" in run(folder, "list").output
    run(folder, "password", "ann@example.com", typed="another one entirely\n")
    assert isinstance(tried(database, GOOD), Refused)
    assert isinstance(tried(database, "another one entirely"), SignedIn)
    assert "ended: 1" in run(folder, "sign-out", "ann@example.com").output
    run(folder, "password", "ann@example.com", "--none")
    assert isinstance(tried(database, "another one entirely"), Refused)
    run(folder, "remove", "ann@example.com")
    assert "nobody yet" in run(folder, "list").output


def test_a_link_makes_the_first_owner_and_a_token_acts_as_its_person(folder: Path, database: str) -> None:
    result = run(folder, "link")
    link = result.stdout.strip()
    assert link.startswith("https://circuit.example.com/sign-in?link=")

    async def use() -> None:
        connection = await open_connection(database)
        try:
            assert isinstance(await redeem(connection, link.rpartition("=")[2]), SignedIn)
            token = run_token.stdout.splitlines()[0]
            person = await person_of_token(connection, token)
            assert person is not None
            assert person.memberships == {"*": "viewer"}
        finally:
            await connection.close()

    run_token = run(folder, "token", "owner", "laptop", "--role", "viewer", "--days", "30")
    asyncio.run(use())
    assert "viewer" in run(folder, "tokens").output
    run(folder, "token", "owner", "laptop", "--revoke")
    assert "none yet" in run(folder, "tokens").output
    with pytest.raises(PeopleRefused, match="owner of everything"):
        run(folder, "remove", "owner")


def test_what_is_unclear_or_wrong_is_refused_and_nothing_is_made(folder: Path) -> None:
    unclear = run(folder, "add", "ann@example.com", "--role", "owner", fails=True)
    assert "for which tenant" in unclear.output
    assert "--role" in run(folder, "add", "ann@example.com", "--tenant", "acme", fails=True).output
    for wrong in (("add", "a b"), ("add", "ann", "--role", "owner", "--tenant", "nowhere"), ("remove", "nobody")):
        with pytest.raises(PeopleRefused):
            run(folder, *wrong)
    with pytest.raises(PeopleRefused, match="12 to"):
        run(folder, "add", "ann@example.com", "--role", "owner", "--tenant", "acme", "--password", typed="short\n")
    assert json.loads(run(folder, "list", "--json").stdout) == []
