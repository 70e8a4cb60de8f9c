from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from circuit_script.config import load_settings
from circuit_script.settings_origin import HIDDEN, SettingOrigin, origins

FILE = """\
# a comment
app = "shop"

[gateway]
port = 9000

[addresses.alerts]
url = "https://user:pass@hooks.example.com/services/T1/very-secret"
secret = "hush"

[sources.standard]
secrets = { acme = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" }

[tenants]
ada = { gohighlevel = [
  "a",
  "b",
] }

[limits]
wall_time = 20
callouts = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATABASE_URL", "CIRCUIT_LIMITS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "circuit.toml").write_text(FILE)
    return tmp_path


def found(folder: Path, **arguments: Any) -> dict[str, SettingOrigin]:
    return {each.name: each for each in origins(load_settings(folder, **arguments), arguments)}


def test_a_setting_of_the_file_names_its_line(folder: Path) -> None:
    settings = found(folder)
    assert settings["app"] == SettingOrigin("app", "shop", "circuit.toml:2")
    assert settings["gateway.port"] == SettingOrigin("gateway.port", 9000, "circuit.toml:5")
    assert settings["gateway.host"].origin == "default", "though its table is in the file"
    assert settings["tenants.ada.gohighlevel"].origin == "circuit.toml:15", "where its statement begins"


def test_the_environment_goes_before_the_file_and_arguments_before_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("circuit_gateway__port", "9001")
    monkeypatch.setenv("CIRCUIT_LIMITS", json.dumps({"callouts": 5}))
    settings = found(folder)
    assert settings["gateway.port"].origin == "environment circuit_gateway__port"
    assert settings["limits.callouts"] == SettingOrigin("limits.callouts", 5, "environment CIRCUIT_LIMITS")
    assert settings["limits.wall_time"].origin == "circuit.toml:21", "the variable does not name it"
    settings = found(folder, gateway={"port": 9002})
    assert settings["gateway.port"] == SettingOrigin("gateway.port", 9002, "argument")


def test_what_is_named_as_the_origin_is_where_the_value_is_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUIT_WORKER__CHILDREN", "3")
    named = [each for each in found(folder).values() if each.origin == "default"]
    (folder / "circuit.toml").unlink()
    monkeypatch.delenv("CIRCUIT_WORKER__CHILDREN")
    bare = {each.name: each.value for each in found(folder).values()}
    assert len(named) > 10
    for each in named:
        assert each.value == bare[each.name], each.name


def test_no_secret_is_ever_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://bob:hunter2@db.example:5433/shop")
    settings = found(folder)
    told = json.dumps([[each.name, str(each.value)] for each in settings.values()])
    for secret in ("hunter2", "bob", "hush", "whsec_", "MfKQ9r8", "very-secret", "pass"):
        assert secret not in told
    assert settings["sources.standard.secrets.acme"].value == HIDDEN
    assert settings["database_url"].value == "postgresql://…@db.example:5433/…"
    assert settings["addresses.alerts.url"].value == "https://…@hooks.example.com/…"
    assert settings["sources.gohighlevel.public_key"].value.startswith("MCow"), "a public key is no secret"


def test_no_secret_of_what_telemetry_speaks_with_is_shown(folder: Path) -> None:
    (folder / "circuit.toml").write_text("""
        sentry.dsn = "https://hunter2@sentry.example/7"
        traces.otlp_url = "https://u:hunter2@tempo.example/v1/traces?key=hunter2"
        traces.otlp_headers = { Authorization = "Bearer hunter2", x-team = "hunter2" }
        alerts.channels.phone.url = "tgram://hunter2/4711"
        alerts.channels.pager.url = "tgram://123:hunter2/4711"
    """)
    settings = found(folder)
    assert "hunter2" not in json.dumps([[each.name, str(each.value)] for each in settings.values()])
    assert settings["sentry.dsn"].value == "https://…@sentry.example/…"
    assert settings["traces.otlp_headers.x-team"].value == HIDDEN


@pytest.mark.parametrize("url", ["not a url hunter2", "host=db password=hunter2", "postgresql://[::1/hunter2"])
def test_an_address_that_cannot_be_read_is_not_shown(folder: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert found(folder)["database_url"].value == HIDDEN
