"""Where a release goes to: what `deploy` and `rollback` ask of the place, and who answers: a database, or a platform.

A `Reach` is how a verb gets to one: by the URL of its database (`--env`), or by its address and a person's token
(`--to`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Protocol, TypeVar

import typer

from circuit_script.cli import app_database
from circuit_script.cli.environments import place, settings_in
from circuit_script.config import Settings
from circuit_script.db.pool import Connection
from circuit_script.releases.moving import Move, go_live, last_started, moves, warm_up
from circuit_script.releases.standing import (
    Course,
    Listed,
    Readiness,
    Shown,
    Standing,
    course_of,
    keep_release,
    listed_of,
    readiness_of,
    shown_of,
    standing_of,
)
from circuit_script.releases.store import NewRelease, ReleaseRow, find_release

To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="URL",
        help="By HTTPS, where the database is out of reach: the platform's address; CIRCUIT_TOKEN.",
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="--to by http://, too: whoever is on the way can read the token.")
]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Going:
    """How a release goes live. ``expected`` is the number of what is live now, NOTHING where nothing was deployed."""

    kind: str
    by: str
    expected: int
    reason: str = ""
    watch: timedelta | None = None


class Place(Protocol):
    """What is asked of where releases are. Each may raise ReleaseRefused, and DatabaseUnavailable or
    ElsewhereAway where nobody answers."""

    async def standing(self) -> Standing:
        """How things stand there."""

    async def find(self, name: str) -> ReleaseRow:
        """By version, number or the beginning of its hash. Raises ReleaseUnknown."""

    async def keep(self, new: NewRelease) -> ReleaseRow:
        """Keep it; the same files are the release that is there."""

    async def warm_up(self, release: ReleaseRow) -> None:
        """Ask every worker to have it ready."""

    async def readiness(self, release: ReleaseRow) -> Readiness:
        """How far they are."""

    async def go_live(self, release: ReleaseRow, going: Going) -> Move:
        """Take it live in the place of what is expected there."""

    async def course(self, move: Move) -> Course:
        """What became of it so far."""

    async def moves(self) -> Sequence[Move]:
        """The latest first."""

    async def listed(self, limit: int, since: datetime) -> Listed:
        """The latest releases, and how each did since then."""

    async def shown(self, name: str) -> Shown:
        """All of one. Raises ReleaseUnknown."""

    async def last_started(self, release: ReleaseRow, since: datetime) -> datetime | None:
        """When the last of its executions began that began since then, of those that have ended."""


class Reach(Protocol):
    """How a verb gets to a place. ``name`` is for people, ``option`` is what says the same again."""

    @property
    def name(self) -> str: ...
    @property
    def option(self) -> str: ...

    def ask(self, what: Callable[[Place], Awaitable[T]]) -> T:
        """Do it there."""


@dataclass(frozen=True, slots=True)
class ByDatabase:
    """To the app's own database, or that of an environment; ``settings`` have its URL."""

    settings: Settings
    env: str | None
    verb: str

    @property
    def name(self) -> str:
        return place(self.env)

    @property
    def option(self) -> str:
        return f" --env {self.env}" if self.env else ""

    def ask(self, what: Callable[[Place], Awaitable[T]]) -> T:
        return app_database.do(self.settings, self.verb, lambda connection: what(InDatabase(connection)))


@dataclass(frozen=True, slots=True)
class InDatabase:
    """The place as its database has it."""

    connection: Connection

    async def standing(self) -> Standing:
        return await standing_of(self.connection)

    async def find(self, name: str) -> ReleaseRow:
        return await find_release(self.connection, name)

    async def keep(self, new: NewRelease) -> ReleaseRow:
        return await keep_release(self.connection, new)

    async def warm_up(self, release: ReleaseRow) -> None:
        await warm_up(self.connection, release)

    async def readiness(self, release: ReleaseRow) -> Readiness:
        return await readiness_of(self.connection, release)

    async def go_live(self, release: ReleaseRow, going: Going) -> Move:
        return await go_live(
            self.connection, release, kind=going.kind, by=going.by, reason=going.reason, watch=going.watch,
            expected=going.expected,
        )  # fmt: skip

    async def course(self, move: Move) -> Course:
        return await course_of(self.connection, move.id)

    async def moves(self) -> Sequence[Move]:
        return await moves(self.connection)

    async def listed(self, limit: int, since: datetime) -> Listed:
        return await listed_of(self.connection, limit, since)

    async def shown(self, name: str) -> Shown:
        return await shown_of(self.connection, name)

    async def last_started(self, release: ReleaseRow, since: datetime) -> datetime | None:
        return await last_started(self.connection, release, since)


def reach_of(settings: Settings, verb: str, env: str | None, to: str | None, insecure: bool) -> tuple[Settings, Reach]:
    """The app's settings there, and the way. Raises BadParameter, ConfigError, and ElsewhereRefused without a token."""
    if to is None:
        if insecure:
            raise typer.BadParameter("it goes with --to", param_hint="--insecure")
        there = settings_in(settings, env)
        return there, ByDatabase(there, env, verb)
    if env is not None:
        raise typer.BadParameter("--env is a database, --to a platform: one of them", param_hint="--to")
    from circuit_script.cli.places_http import by_address  # httpx takes its time, and a rollback has less than a second

    return settings, by_address(to, insecure=insecure)
