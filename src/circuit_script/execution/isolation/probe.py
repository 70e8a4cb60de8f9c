"""Tries both modes, each in a process that ends at once.

python -m circuit_script.execution.isolation.probe FOLDER
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from circuit_script.execution.isolation import confine


class Found(msgspec.Struct, frozen=True):
    """Whether standard isolation hides the settings; what strict isolation lacks and the cure, or how it works."""

    hides: bool = True
    missing: str = ""
    cure: str = ""
    how: str = ""


def main(folder: str) -> Found:
    """Try both."""
    hides = _apart(lambda: Found(confine.zygote("standard", Path(folder), "", os.getppid())[0].hides)).hides
    with tempfile.TemporaryDirectory(prefix="circuit-") as scratch:
        strict = _apart(lambda: _strict(Path(folder), scratch))
    return Found(hides, strict.missing, strict.cure, strict.how)


def _strict(folder: Path, scratch: str) -> Found:
    root = os.geteuid() == 0
    try:
        confine.zygote("strict", folder, scratch, os.getppid())[0].seal()
    except confine.Impossible as error:
        return Found(missing=error.what, cure=error.cure)
    how = f"uid {os.getuid()}, a root and a network of its own, " if root else ""
    return Found(how=f"{how}Landlock, a filter of system calls")


def _apart(look: Callable[[], Found]) -> Found:
    """What ``look`` finds in a process of its own."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.write(writer, msgspec.json.encode(look()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    os.wait()
    return msgspec.json.decode(said, type=Found) if said else Found(False, "the attempt ended its process.", "")


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(sys.argv[1])))
