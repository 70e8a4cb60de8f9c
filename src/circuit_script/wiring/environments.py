"""The pinned packages of a release: a virtual environment for each set of them, made once on a host and used by all.

It sees the platform's own packages behind its own. It stands in the user's cache and not in the app's state, which
handlers must not see. Who uses one has a lock on its folder; what nobody has used for a week is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import structlog

from circuit_script.errors import AppError
from circuit_script.execution.hardening import governed_environment

log = structlog.get_logger()

PATIENCE = 300.0  # seconds that making an environment may take, and waiting for who makes it
LOOK = 0.1  # seconds between looks whether it is made
DONE = "made"  # a file in an environment that is whole
KEPT = 7 * 86400.0  # seconds after its last use
SAID = 1500  # characters of what pip said that are told
_NAME = re.compile(r"[0-9a-f]{24}")
# -P: where we stand, and what is called pip.py or types.py there, is none of their business.
PIP = ("--disable-pip-version-check", "--no-input", "--quiet", "--no-warn-script-location")
# `addsitedir` and no plain path: what is installed for editing stands in .pth files of its own.
PLATFORM = "import site; site.addsitedir({!r})\n"
# Says that all is made as soon as pip has ended well, also where who asked for it was killed meanwhile.
FINISH = """
import pathlib, subprocess, sys
code = subprocess.call(sys.argv[2:])
code or pathlib.Path(sys.argv[1]).touch()
sys.exit(code)
"""


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where environments are kept: the service's cache, if an init system has made one, or the user's."""
    service = environment.get("CACHE_DIRECTORY", "").split(":")[0]
    if service:
        return Path(service) / "environments"
    user = environment.get("XDG_CACHE_HOME", "")
    return (Path(user) if user else Path.home() / ".cache") / "circuit-script" / "environments"


async def interpreter_of(requirements: str, place: Path | None = None, patience: float = PATIENCE) -> str:
    """An interpreter that has these packages; empty where nothing is required: this one. Raises AppError with what pip
    says when they cannot be installed."""
    async with interpreter_in_use(requirements, place, patience) as python:
        return python


@contextlib.asynccontextmanager
async def interpreter_in_use(
    requirements: str, place: Path | None = None, patience: float = PATIENCE
) -> AsyncIterator[str]:
    """As `interpreter_of`, and nobody removes it meanwhile."""
    if not requirements.strip():
        yield ""
        return
    folder = (place or cache_folder()) / _name(requirements)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _own(folder.parent)
        async with asyncio.timeout(patience), _locked(folder) as lock:
            if not (folder / DONE).exists():
                await _make(folder, requirements, lock)
            use = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(use, fcntl.LOCK_SH | fcntl.LOCK_NB)  # who removes has the other lock, too: it is free
    except TimeoutError:
        raise _refused(f"its pinned packages were not installed within {patience:g} s") from None
    except OSError as error:
        raise _refused(f"its pinned packages cannot be kept ({error.filename}: {error.strerror})") from None
    try:
        yield str(folder / "bin" / "python")
    finally:
        with contextlib.suppress(OSError):
            os.utime(folder / DONE)
        os.close(use)


def remove_unused(place: Path | None = None, kept: float = KEPT) -> list[Path]:
    """Remove the environments that nobody on this host uses, or has used within so many seconds; which they were."""
    removed = []
    with contextlib.suppress(OSError):
        for folder in (place or cache_folder()).iterdir():
            with contextlib.suppress(OSError):
                if _NAME.fullmatch(folder.name) and _removed(folder, kept):
                    removed.append(folder)
    for folder in removed:
        log.info("environment.removed", folder=str(folder), why="no release has used it for a week")
    return removed


def _removed(folder: Path, kept: float) -> bool:
    """Raises BlockingIOError where it is used, or made."""
    done = folder / DONE
    if time.time() - (done if done.exists() else folder).stat().st_mtime < kept:
        return False
    lock = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        use = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            done.unlink(missing_ok=True)  # whatever comes between: half of one is none
            shutil.rmtree(folder)
        finally:
            os.close(use)
    finally:
        os.close(lock)
    return True


async def _make(folder: Path, requirements: str, lock: int) -> None:
    log.info("environment.begins", folder=str(folder))
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)  # of one who was killed meanwhile
    ours = find_spec("pip") is not None  # to make another takes seconds
    bare = ["--without-pip"] if ours else []
    await _run(lock, sys.executable, "-P", "-m", "venv", "--system-site-packages", *bare, str(folder))
    python = str(folder / "bin" / "python")
    for packages in (folder / "lib").glob("python*/site-packages"):
        (packages / "circuit_platform.pth").write_text("".join(map(PLATFORM.format, _platform())), "utf-8")
    file = folder / "requirements.txt"
    file.write_text(requirements, "utf-8")
    pip = [sys.executable, "-P", "-m", "pip", "--python", python] if ours else [python, "-P", "-m", "pip"]
    finish = [sys.executable, "-P", "-c", FINISH, str(folder / DONE)]
    await _run(lock, *finish, *pip, "install", *PIP, "-r", str(file))
    log.info("environment.made", folder=str(folder))


async def _run(lock: int, *command: str) -> None:
    """Run a command, which holds the lock, too: it may outlive us. It is ended when we are cancelled."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        pass_fds=[lock],
        env=_environment(),
        start_new_session=True,
    )
    try:
        printed, _ = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()
        raise
    if process.returncode:
        raise _refused(f"its pinned packages cannot be installed:\n{printed.decode(errors='replace').strip()[-SAID:]}")


def _environment() -> dict[str, str]:
    """As handlers have it, and how pip is to reach its index."""
    reach = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR")
    }
    return {**governed_environment(dict(os.environ)), **reach}


@contextlib.asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[int]:
    """One at a time on this host; the kernel frees the lock when its holders have died."""
    lock = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOOK)
        yield lock
    finally:
        os.close(lock)


def _own(folder: Path) -> None:
    """Raises AppError where others may put there what we then run."""
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
        raise AppError(
            f"its pinned packages cannot be kept: another user may write to {folder}.",
            cure="Give this user a cache of its own: XDG_CACHE_HOME.",
            page="release",
        )


def _platform() -> list[str]:
    """Where the platform's own packages are."""
    return list(dict.fromkeys(sysconfig.get_paths()[each] for each in ("purelib", "platlib")))


def _name(requirements: str) -> str:
    """By the packages, the interpreter that they are for, and what the platform brings: that is not installed again."""
    brought = sorted({each.name for place in _platform() for each in Path(place).glob("*-info")})
    of = f"{sys.version}\n{sys.prefix}\n{brought}\n{requirements}"
    return hashlib.sha256(of.encode()).hexdigest()[:24]


def _refused(detail: str) -> AppError:
    return AppError(detail, cure="Mend requirements.txt, or let this host reach the package index.", page="release")
