"""Every setting with its value and where it came from; what is secret is named but never shown."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from circuit_script.config import Settings

Path_ = tuple[str, ...]

FILE = "circuit.toml"
PREFIX = "CIRCUIT_"
NESTED = "__"
OTHER_NAMES: dict[Path_, str] = {("database_url",): "DATABASE_URL"}
DEFAULT = "default"
ARGUMENT = "argument"
ENVIRONMENT = "environment "
HIDDEN = "set (not shown)"

_SECRET = re.compile(r"secret|password|token|headers$|(?<!public_)(?<!legacy_)key$", re.IGNORECASE)
_ADDRESS = re.compile(r"url$|^dsn$", re.IGNORECASE)
_OF_A_HOST = frozenset({"http", "https", "postgres", "postgresql"})  # elsewhere a token may stand where a host does


@dataclass(frozen=True, slots=True)
class SettingOrigin:
    """One setting. ``origin`` is "argument", "environment NAME", "circuit.toml:12" or "default"."""

    name: str
    value: Any
    origin: str


def origins(settings: Settings, arguments: Mapping[str, Any] | None = None) -> list[SettingOrigin]:
    """Every setting of an app; ``arguments`` are those that the command line gave."""
    found = Origins(settings.folder / FILE, arguments)
    shown = settings.model_dump(exclude={"folder"})
    return [SettingOrigin(".".join(path), _shown(path, value), found.of(path)) for path, value in _leaves(shown)]


class Origins:
    """Where values come from: the arguments of a command line, else the environment, else a file."""

    def __init__(self, file: Path, arguments: Mapping[str, Any] | None = None) -> None:
        places = {path: f"{FILE}:{line}" for path, line in _lines_of(file).items()}
        places |= {path: f"{ENVIRONMENT}{name}" for path, name in _environment().items()}
        self._places = places | {path: ARGUMENT for path, _ in _leaves(arguments or {})}

    def of(self, path: Path_) -> str:
        """The origin of one setting."""
        return self._places.get(path, DEFAULT)

    def near(self, path: Path_) -> str:
        """The origin of a value in or around ``path``: a list's entry stands where the list does, a missing one where
        the others of its table do."""
        for length in range(len(path), 0, -1):
            part = path[:length]
            if part in self._places:
                return self._places[part]
            if inside := [place for each, place in self._places.items() if each[:length] == part]:
                return inside[0]
        return DEFAULT


def _environment() -> dict[Path_, str]:
    """The variable that names each setting; one of JSON names all that it holds."""
    found: dict[Path_, str] = {}
    for name, text in os.environ.items():
        path: Path_ | None = next((each for each, other in OTHER_NAMES.items() if other == name.upper()), None)
        if path is None and name.upper().startswith(PREFIX):
            path = tuple(name[len(PREFIX) :].lower().split(NESTED))
        if path is None:
            continue
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found.update({path + inner: name for inner, _ in _leaves(value)})
    return found


def _leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    if isinstance(value, Mapping) and (value or not path):
        for name, each in value.items():
            yield from _leaves(each, (*path, str(name)))
    else:
        yield path, value


def _shown(path: Path_, value: Any) -> Any:
    """The value, unless it is secret. Of an address only the host is shown: its path or user may be a secret."""
    if not value:
        return value
    named = path[1:] if path[0] == "secrets" else path  # which says where they lie
    if any(_SECRET.search(part) for part in named):
        return HIDDEN
    if isinstance(value, str) and _ADDRESS.search(path[-1]):
        return _without_secrets(value)
    return value


def _without_secrets(address: str) -> str:
    try:
        parts = urlsplit(address)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN
    if not parts.scheme or "://" not in address:
        return HIDDEN
    if parts.scheme not in _OF_A_HOST:
        return f"{parts.scheme}://…"
    return f"{parts.scheme}://{'…@' if parts.username else ''}{host}{port}{'/…' if parts.path.strip('/') else ''}"


def _lines_of(file: Path) -> dict[Path_, int]:
    """The line of each setting in a TOML file."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[Path_, int] = {}
    table: Path_ = ()
    for number, statement in _statements(text.splitlines()):
        paths = [path for path, _ in _leaves(tomllib.loads(statement))]
        if statement.lstrip().startswith("["):
            table = paths[0] if paths else ()
        else:
            found.update({table + path: number for path in paths})
    return found


def _statements(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Each statement with its first line; one that goes over several lines is whole once it can be read."""
    begun, collected = 0, ""
    for number, line in enumerate(lines, 1):
        begun, collected = (begun, f"{collected}\n{line}") if collected else (number, line)
        try:
            content = tomllib.loads(collected)
        except tomllib.TOMLDecodeError:
            continue
        if content:
            yield begun, collected
        collected = ""
