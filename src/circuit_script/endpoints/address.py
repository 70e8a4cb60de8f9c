"""Where the worker of an app listens, for the worker itself and for every process that looks for it.

Standard library only: web applications of authors import it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

CONFIGURATION = "circuit.toml"
FOLDER = "CIRCUIT_FOLDER"  # an environment variable: the app's folder, where it cannot be found by its files
MAX_PATH = 100  # bytes; sun_path holds 108 on Linux and 104 on macOS


def socket_path(folder: Path) -> Path:
    """The worker's socket: in ``.circuit`` of the app's folder, or, when that is too long, under /tmp."""
    own = folder.resolve() / ".circuit" / "worker.sock"
    if len(os.fsencode(own)) <= MAX_PATH:
        return own
    name = hashlib.sha256(os.fsencode(own)).hexdigest()[:16]
    return Path("/tmp") / f"circuit-{name}" / "worker.sock"


def find_folder(start: Path) -> Path | None:
    """The app's folder: ``CIRCUIT_FOLDER``, or the nearest one from ``start`` upwards that has a circuit.toml."""
    if named := os.environ.get(FOLDER):
        return Path(named).resolve()
    start = start.resolve()
    return next((each for each in (start, *start.parents) if (each / CONFIGURATION).is_file()), None)
