"""Imports the author's app, once, and says where it is wrong."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import stat
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from circuit_script.errors import AppError

CURE = 'Start it in a function with @on_child_start, or set start = "spawn" under [worker] in circuit.toml.'


def import_app(folder: Path, name: str) -> ModuleType:
    """Import the module or package ``name`` in ``folder``, with all submodules. Raises AppError with file and line."""
    if sys.path[0] != str(folder):
        sys.path.insert(0, str(folder))
    if not has_app(folder, name):
        raise AppError(
            f"There is no {name}.py and no folder {name}/ in {folder}.",
            cure='Make one, or set `app = "..."` in circuit.toml to the module that has your triggers.',
            page="import-failed",
        )
    module = _imported(folder, name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{name}.", onerror=lambda _: None):
        if not found.name.endswith("__main__"):
            _imported(folder, found.name)
    return module


def has_app(folder: Path, name: str) -> bool:
    """Whether there is a module or package ``name`` in ``folder``."""
    path = folder / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def warnings_after_import(ours: frozenset[int], processes: Sequence[int] = ()) -> tuple[str, ...]:
    """Threads and sockets that the app holds open: forked children do not get the threads, and share the sockets. And
    ``processes`` that it has started: they outlive every release.

    Each names its cure: `start = "spawn"`, where each child imports the app itself, or `@on_child_start`.
    """
    warnings = [
        f"importing the app started the thread {thread.name!r}: children do not have it. {CURE}"
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    ]
    native = len(os.listdir("/proc/self/task")) - threading.active_count()
    if native > 0 and "numpy" not in sys.modules:  # the threads of OpenBLAS are known to be safe
        warnings.append(
            f"importing the app started {native} threads outside of Python: children do not have them. {CURE}"
        )
    warnings += [
        f"importing the app started the process {_name_of(pid)!r}: children share it, and it outlives them. {CURE}"
        for pid in processes
    ]
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(entry) not in ours and stat.S_ISSOCK(os.fstat(int(entry)).st_mode):
                warnings.append(
                    f"importing the app opened a socket (descriptor {entry}): all children share it. {CURE}"
                )
    return tuple(warnings)


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return str(pid)


def fingerprint(folder: Path) -> str:
    """Tells one state of the app's files from another: those that were imported from its folder."""
    files = {str(getattr(module, "__file__", None) or "") for module in tuple(sys.modules.values())}
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        path = Path(file)
        if path.is_relative_to(folder) and "site-packages" not in path.parts:
            with suppress(OSError):
                digest.update(file.encode() + b"\0" + hashlib.blake2b(path.read_bytes()).digest())
    return digest.hexdigest()


def _imported(folder: Path, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except AppError:
        raise
    except BaseException as error:  # an app may even call sys.exit while it is imported
        where = _where(folder, error)
        said = f"{type(error).__name__}: {error}".strip().removesuffix(":")
        raise AppError(f"{where}: {said}", cure=f"Mend {where} and start again.", page="import-failed") from error


def _where(folder: Path, error: BaseException) -> str:
    """The author's line that failed: the deepest one within the app's folder."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    last = (mine or frames)[-1]
    return f"{last.filename}:{last.lineno}"
