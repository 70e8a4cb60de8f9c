"""A secret that is deleted while its place fails."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from circuit_script.cli import secrets
from circuit_script.errors import SecretsUnavailable
from circuit_script.secrets.cipher import new_key


def test_where_it_went_is_forgotten_before_the_value_is(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "circuit.toml").write_text(f'[tenants]\nacme = {{}}\n[secrets]\nkey_file = "{tmp_path / "key"}"\n')
    (tmp_path / "key").write_text(new_key())
    monkeypatch.setenv("DATABASE_URL", database)
    folder = ["--tenant", "acme", "--folder", str(tmp_path)]

    def run(*words: str) -> None:
        ran = CliRunner().invoke(secrets.app, [*words, *folder], input="sesame", catch_exceptions=False)
        assert ran.exit_code == 0, ran.output

    run("set", "crm.key", "--hosts", "api.example.com")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION pg_temp.fails() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
            "CREATE TRIGGER fails BEFORE DELETE ON circuit.secrets FOR EACH ROW EXECUTE FUNCTION pg_temp.fails()"
        )
        with pytest.raises(SecretsUnavailable):
            run("delete", "crm.key")
        assert connection.execute("SELECT count(*) FROM circuit.secret_hosts").fetchone() == (0,)
