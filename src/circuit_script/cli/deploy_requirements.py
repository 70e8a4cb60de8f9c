"""What a release asks for besides the platform: its requirements.txt, each package pinned to one version.

A package may be pinned in constraints.txt, too, as `pip install -r requirements.txt -c constraints.txt` reads both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from circuit_script.errors import DeployRefused

FILE = "requirements.txt"
LOCK = "constraints.txt"
OURS = "circuit-script"
PAGE = "deploy"
SHOWN = 5
_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[A-Za-z0-9._,\s-]*\])?\s*"
    r"===?\s*(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)\s*(?:;[^#]*?)?(?:\s--hash=\S+)*"
)
_PLAIN = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[A-Za-z0-9._,\s-]*\])?"
    r"\s*(?:[<>=!~][^;]*)?(?P<marker>;.*)?"
)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def pinned(folder: Path) -> str:
    """The requirements of the app, a line each; empty where it has none. The platform itself is left out: a worker
    brings its own.

    Raises DeployRefused for what would be another thing tomorrow: no version, a range, a folder, an address, a list of
    another file.
    """
    kept, loose = [], []
    locked = {_same(found["name"]): found["version"] for _, line in _lines(_read(folder / LOCK))
              if (found := _PINNED.fullmatch(line))}  # fmt: skip
    for number, line in _lines(_read(folder / FILE)):
        named, plain = _NAME.match(line), _PLAIN.fullmatch(line)
        if named is not None and _same(named[0]) == OURS:
            continue
        if _PINNED.fullmatch(line):
            kept.append(line)
        elif plain is not None and (version_ := locked.get(_same(plain["name"]))):
            kept.append(f"{plain['name']}{plain['extras'] or ''}=={version_}{plain['marker'] or ''}")
        else:
            loose.append((number, line))
    if loose:
        raise _refused(loose)
    return "".join(f"{line}\n" for line in kept)


def differing(requirements: str) -> list[str]:
    """What is installed here in another version than workers will have, or not at all: that is what was tested with."""
    found = []
    for line in requirements.splitlines():
        if (pin := _PINNED.fullmatch(line)) is None or ";" in line:
            continue
        here = _installed(pin["name"])
        if here != pin["version"]:
            found.append(f"{pin['name']} {here or 'none'}")
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # as pip reads it
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise DeployRefused(f"{path.name}: {error}.", cure="Let this user read it, as UTF-8.") from None


def _refused(loose: list[tuple[int, str]]) -> DeployRefused:
    """All of them at once, and how they would stand there."""
    said = "; ".join(f"{FILE}:{number}: {_shown(line)}" for number, line in loose[:SHOWN])
    more = f", and {len(loose) - SHOWN} more" if len(loose) > SHOWN else ""
    found = [pin for _, line in loose if (pin := _as_installed(line)) is not None]
    cure = f"Pin what is installed here: {', '.join(found[:SHOWN])}." if found else "Write each as NAME==VERSION."
    lock = f"All of it at once: uv pip compile {FILE} -o {FILE}, or pip freeze."
    return DeployRefused(f"Not pinned to one version: {said}{more}.", cure=f"{cure} {lock}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Each requirement with its first line: without comments, and whole where it goes over several lines."""
    begun, collected = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        plain = re.sub(r"(^|\s)#.*$", "", line).strip()
        begun = begun or number
        if plain.endswith("\\"):
            collected += f"{plain[:-1].strip()} "
            continue
        if whole := f"{collected}{plain}".strip():
            yield begun, whole
        begun, collected = 0, ""
    if collected.strip():
        yield begun, collected.strip()


def _shown(line: str) -> str:
    """What stands there; of an address, which may hold a password, only that it is one."""
    return line if "://" not in line else f"{line.partition('://')[0].split('@')[0].strip()} (an address)"


def _as_installed(line: str) -> str | None:
    named = _NAME.match(line)
    if named is None or "://" in line or (here := _installed(named[0])) is None:
        return None
    return f"{named[0]}=={here}"


def _same(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
