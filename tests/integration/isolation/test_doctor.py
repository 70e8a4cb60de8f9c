"""`circuit-script doctor` tries isolation, in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuit_script.cli.doctor.check import State
from circuit_script.cli.doctor.isolation import isolation
from circuit_script.config import load_settings
from circuit_script.execution.isolation import confine


def test_it_says_which_mode_is_active_and_whether_strict_is_possible(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    (tmp_path / "circuit.toml").write_text("")
    found = isolation(load_settings(tmp_path))
    assert found.said.startswith("standard is active")
    if confine.lacks() is not None:
        assert "strict is not possible here" in found.said
        return
    assert "strict is possible here" in found.said
    (tmp_path / "circuit.toml").write_text('[worker]\nisolation = "strict"\n')
    found = isolation(load_settings(tmp_path))
    assert found.state is State.good
    assert found.said.startswith("strict is active: ")
    assert "Landlock" in found.said


@pytest.mark.skipif(os.geteuid() != 0 or confine.lacks() is not None, reason="needs strict isolation under another uid")
def test_what_keeps_strict_isolation_away_is_named_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    (tmp_path / "app.py").chmod(0o600)
    (tmp_path / "circuit.toml").write_text('[worker]\nisolation = "strict"\n')
    found = isolation(load_settings(tmp_path))
    assert found.state is State.bad
    assert "app.py" in found.said
    assert found.cure == f"chmod -R o+rX {tmp_path}"
