"""A release's files as a worker will have them: packed, unpacked somewhere clean, and imported in a fresh zygote."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from circuit_script.cli import deploy_gate as gate
from circuit_script.config import Settings
from circuit_script.errors import AppError, DeployRefused
from circuit_script.execution.hardening import governed_environment, hide_from_children
from circuit_script.execution.host.pool import Manifest
from circuit_script.releases import content_hash
from circuit_script.releases.archive import LARGEST, TooLarge, pack
from circuit_script.releases.records import files_of
from circuit_script.releases.sensitive import sensitive
from circuit_script.wiring.children import make_children

LARGE = 5  # files that are named where there is too much
LONGEST = 45.0  # seconds for which it is looked where an import hangs
PROBE = 90.0  # seconds that an explanation may take


@dataclass(frozen=True, slots=True)
class Packed:
    """An app's files, packed. ``files`` are the hashes of each, ``digest`` is that of all."""

    source: bytes
    digest: str
    files: dict[str, bytes]


def pack_files(folder: Path, allowed: Collection[str] = ()) -> Packed:
    """Raises DeployRefused for files that are too large, cannot be read, or change meanwhile, and for those that look
    like secrets and are not ``allowed``."""
    try:
        gate.check_sensitive(list(sensitive(folder, allowed)))
        files, digest = hashes(folder), content_hash(folder)
        source = pack(folder)
    except TooLarge:
        raise DeployRefused(
            f"The app's files are more than {LARGEST // 2**20} MB, compressed. The largest are {_largest(folder)}.",
            cure="Keep data elsewhere, and let handlers fetch it; folders like .venv and .circuit never count.",
        ) from None
    except OSError as error:
        raise DeployRefused(f"{error.filename}: {error.strerror}.", cure="Let this user read it.") from None
    with unpacked(source) as copy:
        if content_hash(copy) != digest:
            gate.check_unchanged(files, hashes(copy))
    return Packed(source, digest, files)


def hashes(folder: Path) -> dict[str, bytes]:
    """The hash of each file of a release, by its name."""
    found = {}
    for path in files_of(folder):
        with contextlib.suppress(FileNotFoundError):
            found["/".join(path.relative_to(folder).parts)] = hashlib.blake2b(path.read_bytes()).digest()
    return found


@contextlib.contextmanager
def unpacked(source: bytes) -> Iterator[Path]:
    """The files in a folder of their own, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="circuit-deploy-", ignore_cleanup_errors=True) as place:
        with tarfile.open(fileobj=io.BytesIO(source), mode="r:gz") as archive:
            archive.extractall(place, filter="data")
        for folder, _, _ in os.walk(place):
            os.chmod(folder, 0o755)  # strict children have another uid
        yield Path(place).resolve()


def import_copy(settings: Settings, packed: Packed) -> tuple[Manifest, str]:
    """What the app declares, and a word about it. Raises DeployRefused with file and line."""
    with unpacked(packed.source) as copy:
        began = time.monotonic()
        most = settings.deploy.import_seconds
        manifest = Manifest((), (), "")
        try:
            manifest = asyncio.run(_import(settings, copy))
        except AppError as error:
            raise gate.refused_import(error.detail, error.cure, copy, settings.folder) from None
        except TimeoutError:
            pass  # it takes longer than is allowed, and how much longer nobody waits for
        seconds = time.monotonic() - began
        places = _places(settings, copy) if manifest.warnings or seconds > most else []
        said = gate.check_import(manifest.warnings, places, seconds, most)
    return manifest, said


async def _import(settings: Settings, copy: Path) -> Manifest:
    hide_from_children()
    children = make_children(settings, copy)
    try:
        async with asyncio.timeout(2 * settings.deploy.import_seconds + 1):  # more than a refusal needs
            return await children.start()
    finally:
        await children.stop()


def _places(settings: Settings, copy: Path) -> list[str]:
    """Where the app's own lines do what it is refused for; none where code is not to be run unfenced."""
    if settings.worker.isolation == "strict":
        return []
    command = [sys.executable, "-P", "-m", "circuit_script.cli.import_probe", str(copy), settings.app]
    command.append(str(min(LONGEST, 2 * settings.deploy.import_seconds + 1)))
    environment = governed_environment(dict(os.environ))
    try:
        with tempfile.TemporaryFile() as said:  # no pipe: what the app starts would hold it open
            ran = subprocess.Popen(
                command,
                cwd=copy,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                ran.wait(PROBE)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(ran.pid, signal.SIGKILL)  # and what it has started
                ran.wait()
            said.seek(0)
            return [str(each) for each in json.loads(said.read())]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []


def _largest(folder: Path) -> str:
    sizes = []
    for path in files_of(folder):
        with contextlib.suppress(FileNotFoundError):
            sizes.append((path.stat().st_size, path.relative_to(folder)))
    return ", ".join(f"{name} ({size / 2**20:,.1f} MB)" for size, name in sorted(sizes, reverse=True)[:LARGE])
