"""Which files the governed side needs: the interpreter, its libraries, the app; and which it must not see."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
FROM_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version", "fonts", "gai.conf",
    "group", "host.conf", "hosts", "inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "localtime",
    "locale.conf", "magic", "mime.types", "nsswitch.conf", "os-release", "passwd", "pki", "protocols", "resolv.conf",
    "services", "ssl", "timezone",
)  # fmt: skip
FROM_SYS = ("/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
STATE, FILE = ".circuit", "circuit.toml"
LOCATION = "postgres.location"  # a file in the state: where the database's data is, when it is not there


def hidden(folder: Path) -> tuple[str, ...]:
    """What holds secrets of the trusted side: settings, and the state with the database's passwords and data."""
    found = [folder / FILE, folder / STATE]
    with suppress(OSError, UnicodeDecodeError):  # it is not known yet, or lies in the state itself
        found.append(Path((folder / STATE / LOCATION).read_text("utf-8").strip()))
    return tuple(str(path) for path in found)


def system() -> Iterator[str]:
    """What every program on this machine may read."""
    yield from (*SYSTEM, *(f"/etc/{name}" for name in FROM_ETC), *FROM_SYS)


def interpreter(folder: Path, home: Path | None = None) -> list[str]:
    """This interpreter and what it imports from, outside of the app's folder and without ``home``, where settings are;
    no path lies below another."""
    package = Path(__file__).resolve().parents[3]
    given = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, os.path.dirname(sys.executable)]
    given += [os.path.dirname(os.path.realpath(sys.executable)), str(package), *sys.path]
    found = {path for each in given if each for path in (os.path.abspath(each), os.path.realpath(each))} - {str(home)}
    return topmost(path for path in found if os.path.exists(path) and not Path(path).is_relative_to(folder))


def entries(folder: Path) -> list[str]:
    """The app's files and folders, one level deep, without what is hidden."""
    return sorted(str(path) for path in folder.iterdir() if path.name not in (STATE, FILE))


def topmost(paths: Iterable[str]) -> list[str]:
    """Those that lie below none of the others."""
    found: list[str] = []
    for path in sorted(set(paths)):
        if not any(Path(path).is_relative_to(above) for above in found):
            found.append(path)
    return found
