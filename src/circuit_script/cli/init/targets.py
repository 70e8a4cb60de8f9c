"""Where an app runs, and what deploys it: the files that a platform asks for, from the templates in ``targets/``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

TEMPLATES = files("circuit_script.cli.init") / "targets"
PINS = "constraints.txt"  # made, not copied
NAME_OF_TEMPLATES = "acme"

_PINS_SAY = (
    "# What the app was made and tested with. `pip install -r requirements.txt -c constraints.txt` brings just that.\n"
)
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[(?P<extras>[^]]*)\])?")


class Target(StrEnum):
    """What runs the app."""

    heroku = "heroku"
    docker = "docker"
    systemd = "systemd"


class CI(StrEnum):
    """What tests and deploys it."""

    github = "github"


# What is written → its template, where the app is called acme. Some have another name there, or tools would obey them.
FILES: Mapping[Target | CI, Mapping[str, str]] = {
    Target.heroku: {
        "Procfile": "heroku/Procfile",
        "app.json": "heroku/app.json",
        ".python-version": "heroku/python-version.txt",
    },
    Target.docker: {
        "Dockerfile": "docker/Dockerfile",
        "compose.yaml": "docker/compose.yaml",
        ".dockerignore": "docker/dockerignore.txt",
        PINS: "",
    },
    Target.systemd: {
        "systemd/acme.service": "systemd/acme.service",
        "systemd/acme-backup.service": "systemd/acme-backup.service",
        "systemd/acme-backup.timer": "systemd/acme-backup.timer",
        "systemd/acme.env.example": "systemd/acme.env.example",
    },
    CI.github: {".github/workflows/release.yml": "github/release.yml"},
}


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of one file: it was ``written``, was there ``as it was``, was ``kept`` though it is another one, or
    was ``replaced``."""

    file: str
    state: str


def content(kind: Target | CI, name: str, requirements: str) -> dict[str, str]:
    """The files of a target for the app called ``name``, which needs these lines of its requirements.txt."""
    called = slug(name)
    found = {}
    for file, template in FILES[kind].items():
        text = TEMPLATES.joinpath(template).read_text("utf-8") if template else pins(requirements)
        found[_called(file, called)] = _called(text, called)
    return found


def place(folder: Path, wanted: Mapping[str, str], *, force: bool) -> list[Placed]:
    """Write what is missing in ``folder``; what is there and differs is replaced with ``force``. Raises OSError."""
    return [Placed(file, _write(folder / file, text, force=force)) for file, text in wanted.items()]


def _write(path: Path, text: str, *, force: bool) -> str:
    there = path.read_text("utf-8", "replace") if path.exists() else None
    if there == text:
        return "as it was"
    if there is not None and not force:
        return "kept"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return "written" if there is None else "replaced"


def slug(name: str) -> str:
    """A name that Heroku, Compose and systemd all accept."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "app"


def _called(text: str, name: str) -> str:
    return re.sub(rf"\b{NAME_OF_TEMPLATES}\b", name, text)


def pins(requirements: str) -> str:
    """The versions, as they are here, of all that these lines of a requirements.txt bring."""
    lines = (line.strip() for line in requirements.splitlines())
    found = dict(sorted(_needed([line for line in lines if line and line[0] not in "#-"])))
    return _PINS_SAY + "".join(f"{name}=={version}\n" for name, version in found.items())


def _needed(requirements: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Packages that are installed, and what they need in turn, each with its version."""
    seen: set[tuple[str, str]] = set()
    waiting = list(requirements)
    while waiting:
        match = _REQUIREMENT.match(waiting.pop())
        if match is None:
            continue
        name = re.sub(r"[-_.]+", "-", match["name"]).lower()
        for extra in ("", *re.findall(r"[\w.-]+", match["extras"] or "")):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                found = distribution(name)
            except PackageNotFoundError:  # another system's, or not installed here
                break
            yield name, found.version
            waiting += [each for each in found.requires or () if _extra_of(each) == extra]


def _extra_of(requirement: str) -> str:
    """The extra that brings it; nothing where the package itself does."""
    match = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", requirement)
    return match[1] if match else ""
