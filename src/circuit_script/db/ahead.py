"""Whether this version can run on a schema that a newer one has changed: on that of the next release, and no further.

Each migration tells with which release of the platform it came and, where it is more than an addition, what a platform
must know to live with it. Both stand in the database, for versions that do not have its file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from circuit_script.errors import StartError

FIRST = "0.1"  # release of what came before migrations told theirs

_SAYS = re.compile(r"^-- (release|needs): *(\S+) *$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: ``name`` is its name without ``.sql``. ``release`` is the platform's that brought it; who works on the
    schema behind it must know the migration ``needs``, anybody where that is empty."""

    name: str
    sql: str
    checksum: str
    release: str = FIRST
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """A migration as the database has it."""

    name: str
    checksum: str
    release: str
    needs: str


def told_by(name: str, text: str, release: str) -> tuple[str, str]:
    """``release`` and ``needs`` as the file says them. Without a word it came with the ``release`` of the one before,
    and what waits until old code is gone (``.post``) needs code that knows it."""
    said = dict(_SAYS.findall(text))
    return said.get("release", release), said.get("needs", name if name.endswith(".post") else "")


def ahead(known: Sequence[Migration], applied: Sequence[Applied]) -> list[str]:
    """The names of what a newer version has applied, on which this one can run all the same. Raises StartError where it
    cannot."""
    names = {each.name for each in known}
    there = {each.name for each in applied}
    newer = sorted((each for each in applied if each.name not in names), key=lambda each: each.name)
    if not newer:
        return []
    said = f"The database has migrations that this version does not know: {_list([each.name for each in newer])}."
    if missing := sorted(names - there):
        raise _refused(f"{said} It lacks some that this version has: {_list(missing)}.")
    if needing := next((each for each in newer if each.needs and each.needs not in names), None):
        raise _refused(f"{said} {needing.name} asks for a version that knows {needing.needs}.")
    own = known[-1].release if known else FIRST
    releases = [each for each in dict.fromkeys(each.release for each in newer) if each != own]
    if len(releases) > 1:
        raise _refused(f"{said} They came with {_list(releases)}: more than one release ahead of {own}.")
    return [each.name for each in newer]


def warned(names: Sequence[str]) -> str:
    """What is said of a schema that is ahead."""
    return (
        f"the database is of a newer version, which has applied {_list(names)}. This one runs on it, too; "
        "start the newer one when what made you go back is mended."
    )


def _refused(detail: str) -> StartError:
    cure = "Start the version of Circuit Script that made them, or a newer one."
    return StartError(detail, cure=cure, page="migration")


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
