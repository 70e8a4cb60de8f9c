"""``circuit-script secrets``, as a person has it."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from circuit_script.cli import secrets
from circuit_script.config import load_settings
from circuit_script.errors import SecretMissing, SecretsUnavailable
from circuit_script.secrets import rotation
from circuit_script.secrets.cipher import Cipher, new_key
from circuit_script.secrets.keys import Keys

VALUE = "sesame-open-now"


@pytest.fixture
def folder(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "circuit.toml").write_text(f'[tenants]\nacme = {{}}\n[secrets]\nkey_file = "{tmp_path / "key"}"\n')
    (tmp_path / "key").write_text(new_key())
    monkeypatch.setenv("DATABASE_URL", database)
    return tmp_path


def run(folder: Path, *arguments: str, input: str | None = None) -> str:
    """What it says; raises what it raises."""
    ran = CliRunner().invoke(secrets.app, [*arguments, "--folder", str(folder)], input=input, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_a_value_is_put_in_by_a_pipe_and_shown_only_when_that_is_asked_for(folder: Path) -> None:
    said = run(folder, "set", "crm.key", "--tenant", "acme", "--hosts", "api.example.com, *.example.org", input=VALUE)
    said += run(folder, "list")
    said += run(folder, "list", "--json")
    assert VALUE not in said
    (entry,) = json.loads(run(folder, "list", "--json"))
    assert (entry["tenant"], entry["name"], entry["version"], entry["store"]) == ("acme", "crm.key", "1", "table")
    assert entry["hosts"] == ["api.example.com", "*.example.org"]
    assert entry["by"]
    refused = CliRunner().invoke(secrets.app, ["get", "crm.key", "--tenant", "acme", "--folder", str(folder)])
    assert refused.exit_code == 2
    assert VALUE not in refused.output
    assert run(folder, "get", "crm.key", "--tenant", "acme", "--show") == f"{VALUE}\n"


def test_the_line_end_of_one_line_is_not_part_of_it_and_lines_of_a_key_are(folder: Path) -> None:
    run(folder, "set", "a", input=f"{VALUE}\n")
    assert json.loads(run(folder, "get", "a", "--show", "--json"))["value"] == VALUE
    pem = "-----BEGIN X-----\nabc\n-----END X-----\n"
    run(folder, "set", "a", input=pem)
    assert json.loads(run(folder, "get", "a", "--show", "--json"))["value"] == pem


def test_what_cannot_be_kept_is_refused_by_what_is_wrong(folder: Path) -> None:
    for arguments, words in (
        (("set", "a/b"), "no name of a secret"),
        (("set", "a", "--tenant", "acne"), "Did you mean 'acme'"),
        (("set", "a"), "Nothing was given"),
        (("delete", "a"), "There is no a of everybody"),
        (("get", "a", "--show"), "There is no a"),
    ):
        with pytest.raises(SecretMissing, match=words):
            run(folder, *arguments, input="\n")
    with pytest.raises(SecretMissing, match="too long"):
        run(folder, "set", "a", input="x" * 70_000)
    wrong = CliRunner().invoke(secrets.app, ["allow", "a", "--hosts", "a b", "--folder", str(folder)])
    assert wrong.exit_code == 2


def test_what_is_deleted_is_gone_with_its_hosts(folder: Path) -> None:
    run(folder, "set", "a", "--hosts", "x.example.com", input=VALUE)
    run(folder, "allow", "a", "--hosts", "y.example.com")
    assert json.loads(run(folder, "list", "--json"))[0]["hosts"] == ["y.example.com"]
    run(folder, "delete", "a")
    assert json.loads(run(folder, "list", "--json")) == []
    run(folder, "set", "a", input=VALUE)
    assert json.loads(run(folder, "list", "--json"))[0]["hosts"] == []


def test_a_key_is_changed_while_values_are_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 4)
    names = [f"k{number}" for number in range(11)]
    for name in names:
        run(folder, "set", name, input=f"value of {name}")
    old = (folder / "key").read_text().strip()
    assert json.loads(run(folder, "rotate-key", "--json")) == {"sealed": 11, "broken": []}
    new = (folder / "key").read_text().split()
    assert len(new) == 2
    assert new[1] == old
    (folder / "key").write_text(new[0])
    assert [run(folder, "get", name, "--show") for name in names] == [f"value of {name}\n" for name in names]
    assert "everything that is sealed opens" in run(folder, "check")


def test_an_interrupted_change_goes_on_where_it_was_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)
    for number in range(7):
        run(folder, "set", f"k{number}", input="v")
    seal, sealed = Cipher.seal, []

    def until_the_power_goes(self: Cipher, text: str, of: str) -> bytes:
        sealed.append(of)
        if len(sealed) == 4:
            raise KeyboardInterrupt
        return seal(self, text, of)

    monkeypatch.setattr(Cipher, "seal", until_the_power_goes)
    assert CliRunner().invoke(secrets.app, ["rotate-key", "--folder", str(folder)]).exit_code != 0
    monkeypatch.setattr(Cipher, "seal", seal)
    half = [each for each in (folder / "key").read_text().split() if not each.startswith("#")]
    assert json.loads(run(folder, "rotate-key", "--json"))["sealed"] == 5
    assert (folder / "key").read_text().split() == half, "it went on with the same new key"
    assert run(folder, "get", "k6", "--show") == "v\n"


def test_keys_of_the_environment_are_rotated_by_naming_both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = new_key(), new_key()
    monkeypatch.setenv("CIRCUIT_SECRETS_KEY", old)
    run(folder, "set", "a", input=VALUE)
    monkeypatch.setenv("CIRCUIT_SECRETS_KEY", f"{new},{old}")
    assert json.loads(run(folder, "rotate-key", "--json"))["sealed"] == 1
    assert json.loads(run(folder, "rotate-key", "--json"))["sealed"] == 0
    monkeypatch.setenv("CIRCUIT_SECRETS_KEY", new)
    assert run(folder, "get", "a", "--show") == f"{VALUE}\n"
    monkeypatch.setenv("CIRCUIT_SECRETS_KEY", old)
    with pytest.raises(SecretsUnavailable, match="not among those given"):
        run(folder, "get", "a", "--show")
    checked = CliRunner().invoke(secrets.app, ["check", "--json", "--folder", str(folder)])
    assert checked.exit_code == 1
    assert any("not among those given" in (each["wrong"] or "") for each in json.loads(checked.stdout))
    failed = CliRunner().invoke(secrets.app, ["rotate-key", "--json", "--folder", str(folder)])
    assert failed.exit_code == 1
    assert len(json.loads(failed.stdout)["broken"]) == 1


def test_tokens_of_connections_are_sealed_again_too(folder: Path, database: str) -> None:
    keys = Keys(load_settings(folder))
    with psycopg.connect(database, autocommit=True) as connection:
        for tenant, refresh in (("acme", keys.seal("refresh-1", "acme/crm/refresh")), ("other", None)):
            access = keys.seal(f"access of {tenant}", f"{tenant}/crm/access")
            connection.execute(
                "INSERT INTO circuit.connections (tenant, connector, account, base_url, kind, access, refresh) "
                "VALUES (%s, 'crm', 'a', 'https://crm.example.com', 'oauth', %s, %s)",
                (tenant, access, refresh),
            )
        assert json.loads(run(folder, "rotate-key", "--json")) == {"sealed": 3, "broken": []}
        (folder / "key").write_text((folder / "key").read_text().split()[0])
        opened = [
            (keys.open(access, f"{tenant}/crm/access"), refresh and keys.open(refresh, f"{tenant}/crm/refresh"))
            for tenant, access, refresh in connection.execute(
                "SELECT tenant, access, refresh FROM circuit.connections ORDER BY tenant"
            )
        ]
    assert opened == [("access of acme", "refresh-1"), ("access of other", None)]
    assert "everything that is sealed opens" in run(folder, "check")
