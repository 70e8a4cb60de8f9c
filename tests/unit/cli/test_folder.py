from __future__ import annotations

from pathlib import Path

import pytest

from circuit_script.cli.folder import app_folder
from circuit_script.errors import NoApp


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CIRCUIT_FOLDER", raising=False)
    (tmp_path / "acme" / "app" / "deep").mkdir(parents=True)
    (tmp_path / "acme" / "circuit.toml").touch()
    return tmp_path / "acme"


def test_the_app_is_found_from_below_it(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app / "app" / "deep")
    assert app_folder(None) == app


def test_a_folder_with_code_and_no_settings_is_an_app(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (app / "circuit.toml").unlink()
    monkeypatch.chdir(app)
    assert app_folder(None) == app
    assert app_folder(app) == app


def test_a_folder_that_was_given_must_be_the_app_itself(app: Path) -> None:
    with pytest.raises(NoApp, match=r"app/deep has no circuit\.toml and no app/\..*--folder.*init"):
        app_folder(app / "app" / "deep")


def test_nothing_is_made_where_there_is_no_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoApp):
        app_folder(None)
    assert list(tmp_path.iterdir()) == []
