"""Where secrets lie: the table, sealed; AWS Secrets Manager, as moto plays it; Vault, as a stand-in does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from circuit_script.config import Settings, load_settings
from circuit_script.db.pool import Connection, open_connection, tenant_reading
from circuit_script.errors import SecretMissing, SecretsUnavailable
from circuit_script.secrets import Keys, open_secrets
from circuit_script.secrets.aws import Aws
from circuit_script.secrets.hosts import HostsTable
from circuit_script.secrets.places import Place
from circuit_script.secrets.table import One, Table
from circuit_script.secrets.vault import Vault
from circuit_script.settings_secrets import AwsSettings, VaultSettings
from circuit_script.telemetry.redact import REDACTED, Redactor
from tests import vault
from tests.acceptance.platform import free_port
from tests.aws import standing_in


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    made = await open_connection(database)
    yield made
    await made.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "circuit.toml").write_text("[tenants]\nacme = {}\nglobex = {}\n")
    return load_settings(tmp_path)


@pytest.fixture(scope="module")
def aws_url() -> Iterator[str]:
    with standing_in("secretsmanager", lambda client: client.list_secrets()) as url:
        yield url


@pytest.fixture
def stand_in() -> Iterator[vault.StandIn]:
    with vault.serving() as made:
        yield made


@pytest.fixture(params=["table", "aws", "vault"])
async def place(request: pytest.FixtureRequest, connection: Connection, settings: Settings) -> AsyncIterator[Place]:
    match request.param:
        case "aws":
            url = request.getfixturevalue("aws_url")
            of_aws = Aws(AwsSettings(endpoint_url=url, prefix=f"t{os.getpid()}/{id(request)}/"))
            yield of_aws
            await of_aws.aclose()
        case "vault":
            made = Vault(VaultSettings(url=request.getfixturevalue("stand_in").url), {"VAULT_TOKEN": vault.TOKEN})
            yield made
            await made.aclose()
        case _:
            yield Table(One(connection), Keys(settings))


async def test_every_place_keeps_replaces_lists_and_deletes(place: Place) -> None:
    assert await place.read("acme", "crm.token") is None
    assert await place.delete("acme", "crm.token") is False
    assert await place.all() == []
    value = 'one "é"\nand another line'
    await place.write("acme", "crm.token", value, "ann")
    await place.write("", "crm.token", "everybody's", "ann")
    await place.write("globex", "crm.token", "globex's", "ann")
    assert await place.read("acme", "crm.token") == value
    assert await place.read("", "crm.token") == "everybody's"
    assert await place.read("acme", "crm") is None
    first = await place.all()
    assert [(each.tenant, each.name) for each in first] == [(t, "crm.token") for t in ("", "acme", "globex")]
    assert all(each.created_at is not None for each in first)
    await place.write("acme", "crm.token", "two", "ann")
    assert await place.read("acme", "crm.token") == "two"
    assert (await place.all())[1].version != first[1].version
    assert await place.delete("acme", "crm.token") is True
    assert await place.read("acme", "crm.token") is None
    assert await place.read("globex", "crm.token") == "globex's"
    await place.write("acme", "crm.token", "back", "ann")
    assert await place.read("acme", "crm.token") == "back"


async def test_the_table_holds_no_value_and_opens_no_row_that_was_copied(
    connection: Connection, settings: Settings
) -> None:
    table = Table(One(connection), Keys(settings))
    await table.write("acme", "crm.token", "sesame-open-now", "ann")
    row = await (await connection.execute("SELECT row_to_json(s)::text, sealed FROM circuit.secrets s")).fetchone()
    assert row is not None
    assert "sesame" not in row[0]
    assert b"sesame" not in row[1]
    await connection.execute(
        "INSERT INTO circuit.secrets (tenant, name, sealed, by) SELECT 'globex', name, sealed, by FROM circuit.secrets"
    )
    with pytest.raises(SecretsUnavailable, match="another place"):
        await table.read("globex", "crm.token")


@pytest.mark.every_server
async def test_no_tenant_reads_the_tables(database: str, pooler: bool) -> None:
    connection = await open_connection(database)
    try:
        for table in ("secrets", "secret_hosts"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with tenant_reading(connection, "acme"):
                    await connection.execute(f"SELECT * FROM circuit.{table}".encode())
    finally:
        await connection.close()


async def test_a_tenants_own_comes_before_everybodys_and_the_environment_before_the_store(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = open_secrets(settings, One(connection))
    with pytest.raises(SecretMissing, match=r"There is no crm\.token of acme") as missing:
        await secrets.get("acme", "crm.token")
    assert "circuit-script secrets set crm.token --tenant acme" in missing.value.cure
    assert "CIRCUIT_SECRET_ACME__CRM_TOKEN" in missing.value.cure
    await secrets.put("", "crm.token", "everybody-s")
    assert await secrets.get("acme", "crm.token") == "everybody-s"
    monkeypatch.setenv("CIRCUIT_SECRET_CRM_TOKEN", "everybody-s of the environment")
    assert await secrets.get("acme", "crm.token") == "everybody-s of the environment"
    await secrets.put("acme", "crm.token", "acme-s")
    assert await secrets.get("acme", "crm.token") == "acme-s"
    assert await secrets.get("globex", "crm.token") == "everybody-s of the environment"
    monkeypatch.setenv("CIRCUIT_SECRET_ACME__CRM_TOKEN", "acme-s of the environment")
    assert await secrets.get("acme", "crm.token") == "acme-s of the environment"


async def test_a_change_made_elsewhere_is_seen_once_it_is_forgotten(connection: Connection, settings: Settings) -> None:
    secrets, elsewhere = (open_secrets(settings, One(connection)) for _ in range(2))
    await elsewhere.put("acme", "crm.token", "old-value")
    assert await secrets.get("acme", "crm.token") == "old-value"
    await elsewhere.put("acme", "crm.token", "new-value")
    assert await secrets.get("acme", "crm.token") == "old-value"
    secrets.forget("acme", "crm.token")
    assert await secrets.get("acme", "crm.token") == "new-value"


async def test_what_was_read_is_redacted_from_then_on(connection: Connection, settings: Settings) -> None:
    secrets = open_secrets(settings, One(connection))
    await secrets.put("acme", "crm.token", "plain words of a vendor")
    redactor = Redactor()
    await secrets.get("acme", "crm.token")
    assert redactor.text("HTTP 400: plain words of a vendor is no token") == f"HTTP 400: {REDACTED} is no token"
    assert redactor.fields({"echo": {"said": "plain words of a vendor"}}) == {"echo": {"said": REDACTED}}


async def test_where_a_secret_may_go_is_the_tenants_own_word_else_everybodys(
    connection: Connection, settings: Settings
) -> None:
    secrets, hosts = open_secrets(settings, One(connection)), HostsTable(One(connection))
    assert await secrets.hosts("acme", "k") == ()
    await hosts.write("", "k", ["api.example.com"], "ann")
    secrets.forget()
    assert await secrets.hosts("acme", "k") == ("api.example.com",)
    await hosts.write("acme", "k", ["own.example.com"], "ann")
    secrets.forget("acme")
    assert await secrets.hosts("acme", "k") == ("own.example.com",)
    await hosts.write("acme", "k", [], "ann")
    secrets.forget("acme")
    assert await secrets.hosts("acme", "k") == ("api.example.com",)


async def test_a_database_that_is_away_is_told_as_such(database: str, settings: Settings) -> None:
    connection = await open_connection(database)
    await connection.close()
    with pytest.raises(SecretsUnavailable, match="database does not answer"):
        await open_secrets(settings, One(connection)).get("acme", "crm.token")


async def test_vaults_role_logs_in_again_when_its_token_is_refused_or_ends(stand_in: vault.StandIn) -> None:
    opened = {"VAULT_ROLE_ID": vault.ROLE, "VAULT_SECRET_ID": vault.SECRET}
    place = Vault(VaultSettings(url=stand_in.url), opened)
    await place.write("acme", "k", "v", "ann")
    await place.read("acme", "k")
    assert stand_in.logins == 1
    stand_in.tokens.clear()
    assert await place.read("acme", "k") == "v"
    assert stand_in.logins == 2
    stand_in.lasts = 0
    assert await place.read("acme", "k") == "v"
    assert stand_in.logins == 2
    await place.aclose()
    wrong = Vault(VaultSettings(url=stand_in.url), {**opened, "VAULT_SECRET_ID": "wrong-one"})
    with pytest.raises(SecretsUnavailable, match="invalid role or secret ID") as refused:
        await wrong.read("acme", "k")
    assert "wrong-one" not in str(refused.value)
    await wrong.aclose()


async def test_vault_says_what_is_wrong_and_never_its_token(stand_in: vault.StandIn) -> None:
    place = Vault(VaultSettings(url=stand_in.url), {"VAULT_TOKEN": "hvs.wrong-token"})
    with pytest.raises(SecretsUnavailable, match=r"403.*permission denied") as refused:
        await place.read("acme", "k")
    assert "hvs." not in str(refused.value)
    stand_in.fails = 503
    with pytest.raises(SecretsUnavailable, match="Unseal it"):
        await place.read("acme", "k")
    await place.aclose()
    closed = Vault(VaultSettings(url=f"http://127.0.0.1:{free_port()}"), {"VAULT_TOKEN": "hvs.wrong-token"})
    with pytest.raises(SecretsUnavailable, match="does not answer"):
        await closed.read("acme", "k")
    await closed.aclose()
    for said in ({}, {"VAULT_ADDR": stand_in.url}, {"VAULT_ADDR": stand_in.url, "VAULT_ROLE_ID": vault.ROLE}):
        with pytest.raises(SecretsUnavailable):
            Vault(VaultSettings(), said)


async def test_aws_that_is_away_is_told_as_such(aws_url: str) -> None:
    place = Aws(AwsSettings(endpoint_url=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(SecretsUnavailable, match="AWS"):
        await place.read("acme", "k")


async def test_the_store_is_the_one_that_the_settings_name(
    connection: Connection, tmp_path: Path, stand_in: vault.StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", vault.TOKEN)
    (tmp_path / "circuit.toml").write_text(f'[secrets]\nstore = "vault"\n[secrets.vault]\nurl = "{stand_in.url}"\n')
    secrets = open_secrets(load_settings(tmp_path), One(connection))
    await secrets.put("default", "crm.token", "of the vault")
    assert stand_in.kept["circuit-script/default/crm.token"][-1]["value"] == "of the vault"
    assert await secrets.get("default", "crm.token") == "of the vault"
    await secrets.aclose()
