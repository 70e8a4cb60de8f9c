"""What `doctor` says of those who watch over the platform."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from circuit_script.cli.doctor import see
from circuit_script.cli.doctor.check import Check, State
from circuit_script.cli.doctor.see import watching
from circuit_script.config import Settings
from circuit_script.supervised import Roles, Standing, tell


def look(folder: Path, **sections: Any) -> dict[str, Check]:
    return {each.name: each for each in watching(Settings(folder=folder, **sections))}


def test_without_settings_all_is_well_and_it_says_what_there_is_not(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert {name: each.state for name, each in found.items()} == dict.fromkeys(
        ("dashboard", "alerts", "heartbeat"), State.good
    )
    assert "8002" in found["dashboard"].said
    assert "nobody outside" in found["heartbeat"].said


def test_channels_need_an_address_and_no_address_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_CHANNEL", "json://user:pa55@host")
    channels = {"team": {"url_env": "TEAM_CHANNEL"}, "mail": {"url": "mailto://user:pa55@host"}}
    well = look(tmp_path, alerts={"channels": channels}, guardian={"heartbeat_url": "https://x:pa55@hc.test/pa55"})
    assert (well["alerts"].state, well["heartbeat"].state) == (State.good, State.good)
    assert "told: mail, team" in well["alerts"].said
    assert "hc.test" in well["heartbeat"].said
    assert "pa55" not in str(well)
    ill = look(tmp_path, alerts={"channels": {**channels, "none": {"url_env": "NOT_THERE"}, "empty": {}}})
    assert ill["alerts"].state is State.bad
    assert "empty, none" in ill["alerts"].said


def test_what_is_asked_for_and_not_installed_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(see, "find_spec", lambda _: None)
    sections = {
        "alerts": {"channels": {"team": {"url": "json://host"}}},
        "traces": {"otlp_url": "https://host/v1/traces"},
        "sentry": {"dsn": "https://key@host/1"},
    }
    found = look(tmp_path, **sections)
    assert {name: each.cure.partition("[")[2].partition("]")[0] for name, each in found.items() if each.cure} == {
        "dashboard": "dashboard", "alerts": "alerts", "traces": "otel", "sentry": "sentry",
    }  # fmt: skip
    assert found["dashboard"].state is State.warning, "all else goes on without it"
    assert "false" in look(tmp_path, dashboard={"enabled": False})["dashboard"].said


def test_a_dashboard_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    state = tmp_path / ".circuit"
    state.mkdir()
    tell(state, Roles(os.getpid(), {"dashboard": Standing(down="it ended with status 1")}))
    assert look(tmp_path)["dashboard"].state is State.warning
    tell(state, Roles(os.getpid(), {"dashboard": Standing(pid=7, said="http://127.0.0.1:8002")}))
    assert look(tmp_path)["dashboard"].said == "http://127.0.0.1:8002 (process 7)"
    tell(state, Roles(2**22 + 1, {"dashboard": Standing(down="long ago")}))
    assert look(tmp_path)["dashboard"].state is State.good
