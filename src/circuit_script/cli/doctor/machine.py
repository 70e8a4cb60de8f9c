"""The machine: Python, kernel, descriptors, disk."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from circuit_script.cli.doctor.check import Check, bad, good, warning

OLDEST_PYTHON = (3, 11)
FEW_FILES, SCARCE_FILES = 1024, 256
LITTLE_SPACE, NO_SPACE = 1024**3, 200 * 1024**2  # bytes
_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")


def machine(folder: Path) -> Iterator[Check]:
    """What does not depend on the app's settings."""
    yield _python()
    yield _kernel()
    yield _namespaces()
    yield _open_files()
    yield _writable(folder)
    yield _space(folder)


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return bad("python", f"This is Python {version}.", "Install Python 3.11 or newer.")
    return good("python", f"Python {version} at {sys.executable}")


def _kernel() -> Check:
    """Handlers are watched by pidfd, and share memory with the worker by memfd."""
    if sys.platform != "linux":
        return bad("kernel", f"This is {sys.platform}.", "Run it on Linux, or in a Linux container.")
    try:
        os.close(os.pidfd_open(os.getpid()))
        os.close(os.memfd_create("doctor"))
    except (AttributeError, OSError) as error:
        return bad("kernel", f"pidfd_open or memfd_create: {error}.", "Use Linux 5.3 or newer, and allow both calls.")
    return good("kernel", f"Linux {platform.release()}: pidfd_open and memfd_create work")


def _namespaces() -> Check:
    try:
        most = int(_NAMESPACES.read_text())
    except (OSError, ValueError):
        most = 0
    if most:
        return good("namespaces", "user namespaces are allowed")
    return good("namespaces", "user namespaces are not allowed: isolation says what that means")


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    cure = f"Raise it: ulimit -n {min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536}."
    if soft < SCARCE_FILES:
        return bad("open files", f"This process may open {soft} files.", cure)
    if soft < FEW_FILES:
        return warning("open files", f"This process may open {soft} files: few for many connections.", cure)
    return good("open files", f"up to {soft:,}")


def _writable(folder: Path) -> Check:
    state = folder / ".circuit"
    for each in (folder, state):
        if each.exists() and not os.access(each, os.W_OK | os.X_OK):
            return bad("folder", f"{each} cannot be written to.", "Let this user write there, or run as its owner.")
    if not folder.is_dir():
        return bad("folder", f"There is no folder {folder}.", "Make an app: circuit-script init NAME.")
    return good("folder", f"{folder} can be written to")


def _space(folder: Path) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return bad("disk", f"{folder}: {error.strerror}.", "Choose another folder.")
    said = f"{free / 1024**3:.1f} GB free"
    if free < NO_SPACE:
        return bad("disk", said, f"Free some space on the disk that holds {folder}.")
    if free < LITTLE_SPACE:
        return warning("disk", said, f"Free some space on the disk that holds {folder}.")
    return good("disk", said)
