"""Environments of pinned packages: made again when they must be, finished without their maker, and nobody else's."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from circuit_script.errors import AppError
from circuit_script.wiring import environments
from circuit_script.wiring.environments import interpreter_in_use, interpreter_of, remove_unused
from tests.road import eventually


async def test_what_the_platform_brought_of_the_pinned_packages_is_installed_once_it_brings_another_version(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = tmp_path / "platform"
    paths = {"purelib": str(platform), "platlib": str(platform)}
    monkeypatch.setattr(environments, "sysconfig", SimpleNamespace(get_paths=lambda: paths))
    for version in ("1.0", "2.0"):
        shutil.rmtree(platform, ignore_errors=True)
        with zipfile.ZipFile(packages / f"greeting-{version}-py3-none-any.whl") as archive:
            archive.extractall(platform)
        python = await interpreter_of("greeting==1.0", tmp_path / "cache")
        asked = [python, "-c", "import greeting; print(greeting.VERSION)"]
        assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "1.0\n"


@pytest.mark.slow
@pytest.mark.usefixtures("packages")
async def test_an_environment_whose_maker_was_killed_is_finished_without_him(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    make = f"""
import asyncio, pathlib
from circuit_script.wiring.environments import interpreter_of
asyncio.run(interpreter_of("greeting==1.0", pathlib.Path({str(cache)!r})))
"""
    maker = await asyncio.create_subprocess_exec(sys.executable, "-c", make)

    async def begun() -> bool:
        return any(cache.glob("*/requirements.txt"))

    await eventually(begun, "pip begins")
    maker.kill()
    await maker.wait()
    (made,) = cache.glob("*/pyvenv.cfg")
    before = made.stat().st_ino, made.stat().st_mtime_ns
    await interpreter_of("greeting==1.0", cache)
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == before


@pytest.mark.usefixtures("packages")
async def test_an_environment_goes_a_week_after_the_last_release_that_used_it(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    others = cache / "somebody-elses"
    others.mkdir(parents=True)
    async with interpreter_in_use("greeting==1.0", cache) as python:
        folder = Path(python).parents[1]
        os.utime(folder / "made", (0, 0))
        assert remove_unused(cache) == [], "it is used, however old it is"
    assert remove_unused(cache) == [], "it was, until now"
    for each in (folder / "made", others):
        os.utime(each, (0, 0))
    assert remove_unused(cache) == [folder]
    assert not folder.exists()
    assert others.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder is made by root alone")
async def test_environments_are_not_taken_from_a_folder_that_another_user_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, 1234, 1234)
    with pytest.raises(AppError, match="another user"):
        await interpreter_of("greeting==1.0", cache)
    os.chown(cache, 0, 0)
    cache.chmod(0o777)
    with pytest.raises(AppError, match="another user"):
        await interpreter_of("greeting==1.0", cache)


@pytest.mark.usefixtures("packages")
async def test_files_where_the_worker_stands_are_not_taken_for_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("subprocess", "venv", "pip", "shutil"):
        (here / f"{name}.py").write_text("raise SystemExit('an app has such a file')\n")
    monkeypatch.chdir(here)
    assert await interpreter_of("greeting==1.0", tmp_path / "cache")
