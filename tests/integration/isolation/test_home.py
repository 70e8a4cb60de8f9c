"""Code that is imported from another folder than the app's own, as a recorded release is, does not see the settings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from circuit_script.execution.isolation import confine, paths
from circuit_script.execution.nursery import Hosting
from tests.integration.execution.conftest import Bench, PoolOf
from tests.integration.isolation.conftest import EVALUATES, StrictOf, code_in

SECRETS = ("circuit.toml", ".circuit/postgres.password")


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / ".circuit").mkdir()
    for name in SECRETS:
        (folder / name).write_text("secret")
    return folder


async def seen(bench: Bench, home: Path) -> list[str]:
    """What a handler reads of the app's own folder."""
    lines = "found = []"
    for name in SECRETS:
        read = f"open({str(home / name)!r}).read()"
        lines += f'; exec("try: found.append({read})\\nexcept OSError: pass")'
    return list(eval(await code_in(bench, f"{lines}; found")))


async def test_standard_isolation_hides_them(pool_of: PoolOf, home: Path) -> None:
    bench = await pool_of(EVALUATES, hosting=Hosting("standard", "fork", str(home)))
    manifest = bench.pool._manifest
    if manifest is None or not manifest.hides:
        pytest.skip("this machine lets nobody mount")
    assert await seen(bench, home) == []


async def test_strict_isolation_hides_them_also_when_code_is_imported_from_there(
    strict_of: StrictOf, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(home), prepend=":")
    bench = await strict_of(hosting=Hosting("strict", "fork", str(home)))
    assert await seen(bench, home) == []


def test_code_from_above_the_settings_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(home)])
    assert str(home) not in paths.interpreter(Path("/nowhere"), home)

    monkeypatch.setattr(sys, "path", [*sys.path, str(home.parent)])
    code = paths.interpreter(Path("/nowhere"), home)
    with pytest.raises(confine.Impossible, match="has the app's settings below it"):
        confine._refuse_above(home, code)
