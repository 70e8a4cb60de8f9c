"""A release on its way from who made it to a platform that is elsewhere, and what is believed of it there.

Nothing of it is executed or unpacked where it is received: its archive is read through once, within bounds, and must be
as `archive.pack` writes it; its hash is counted anew. What its handlers are is compared by the workers, too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec

from circuit_script.errors import CircuitError, ReleaseRefused
from circuit_script.execution.outcome import EndpointSpec, HandlerSpec, JobSpec
from circuit_script.execution.timing import (
    CATCH_UP,
    LONGEST_JITTER,
    LONGEST_PERIOD,
    SHORTEST_PERIOD,
    Schedule,
    WrongTime,
    checked_cron,
    checked_zone,
)
from circuit_script.governor import Limits
from circuit_script.releases.archive import LARGEST, RATIO
from circuit_script.releases.records import is_part, manifest_of
from circuit_script.releases.store import NewRelease

MEDIA_TYPE = "application/msgpack"
MOST_SAID = 2 * 1024 * 1024  # bytes of all that is said beside the archive
MOST = LARGEST + MOST_SAID
MOST_UNPACKED = LARGEST * RATIO
MOST_FILES = 20_000
PIECE = 64 * 1024  # bytes that are read at once; no header is longer
AHEAD = timedelta(minutes=10)  # by which the clock of who tested it may be wrong
_BROKEN = (tarfile.TarError, OSError, zlib.error, EOFError, ValueError, RecursionError)
_PINNED = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\s?(?:\[[A-Za-z0-9._, -]*\])?\s?===?\s?[A-Za-z0-9][A-Za-z0-9.!+_-]*"
    r"\s?(?:;[A-Za-z0-9._'\"<>=!~() ]*)?(?: --hash=[a-z0-9]+:[0-9a-f]+)*"
)

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class SentStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A gate that it has passed."""

    step: str
    outcome: str
    seconds: float
    detail: str


class SentGates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When it passed the gates, and on what."""

    validated_at: datetime
    ground: dict[str, str]
    steps: list[SentStep]


class SentHandler(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A handler as a manifest has it (`records.manifest_of`)."""

    name: Name
    routes: Annotated[list[tuple[Name, Name]], msgspec.Meta(max_length=1000)]
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    limits: Limits
    file: str
    line: Count
    doc: str
    endpoint: EndpointSpec | None
    job: JobSpec | None = None
    budget: float | None = None

    @property
    def spec(self) -> HandlerSpec:
        return HandlerSpec(
            self.name, tuple(self.routes), self.batch_size, self.limits, file=self.file, line=self.line, doc=self.doc,
            endpoint=self.endpoint, job=self.job, budget=self.budget,
        )  # fmt: skip


class Sent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release as it is sent, but for who made it: that is whose token it is sent with."""

    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    source: bytes
    handlers: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=1000)]
    version: Annotated[str, msgspec.Meta(max_length=40)] | None
    message: Annotated[str, msgspec.Meta(max_length=10_000)]
    requirements: Annotated[str, msgspec.Meta(max_length=100_000)]
    report: dict[str, Any]


def sent(new: NewRelease) -> bytes:
    """The body that carries it."""
    return msgspec.msgpack.encode(
        Sent(new.digest, new.source, manifest_of(new.handlers), new.version, new.message, new.requirements,
             dict(new.report))
    )  # fmt: skip


def received(body: bytes | bytearray, author: str) -> NewRelease:
    """What was sent, once it is known to be what it says. Raises ReleaseRefused, ValueError for what has another
    form."""
    try:
        said = msgspec.msgpack.decode(body, type=Sent)
        _check_report(said.report)
        handlers = _specs(said.handlers)
    except (msgspec.DecodeError, WrongTime, RecursionError) as error:
        raise ValueError(f"{error}"[:500]) from None
    if len(body) - len(said.source) > MOST_SAID:
        raise ReleaseRefused(f"At most {MOST_SAID:,} bytes may be said of a release.", cure="Shorten its message.")
    for line in said.requirements.splitlines():
        if not _PINNED.fullmatch(line):
            raise ReleaseRefused(
                f"{line[:200]!r} pins no package to one version.", cure="Write it like humanize==4.9.0."
            )
    if digest_of(said.source) != said.digest:
        raise ReleaseRefused("The files are not those of the hash that was sent with them.", cure="Deploy again.")
    return NewRelease(
        said.digest, said.source, handlers, said.version, author, said.message, said.requirements, said.report
    )


def digest_of(source: bytes) -> str:
    """The content hash of the files in an archive, which are neither unpacked nor held. Raises ReleaseRefused for
    whatever `archive.pack` would not write: links, other places, another order, more than is allowed."""
    if len(source) > LARGEST:
        raise ReleaseRefused(f"The archive has {len(source):,} bytes; at most {LARGEST:,} are kept.")
    digest = hashlib.sha256()
    before: Sequence[str] = ()
    try:
        with tarfile.open(fileobj=_Bounded(source), mode="r:", errors="strict") as archive:  # type: ignore[call-overload]  # a file as far as it is asked
            number = 0
            while (entry := archive.next()) is not None:
                name, number = _checked(entry, before, number), number + 1
                before = name.split("/")
                encoded = name.encode()
                digest.update(b"%d:%s%d:" % (len(encoded), encoded, entry.size))
                content = archive.extractfile(entry)
                assert content is not None  # of a regular file
                left = entry.size
                while piece := content.read(min(PIECE, left)):
                    digest.update(piece)
                    left -= len(piece)
                if left:
                    raise EOFError
                archive.members = []  # else it keeps what it has met
    except _BROKEN:
        raise ReleaseRefused("Its files are no archive of a release, or not all of it.", cure="Deploy again.") from None
    return digest.hexdigest()


def _checked(entry: tarfile.TarInfo, before: Sequence[str], number: int) -> str:
    """The name of an entry. Raises ReleaseRefused for one that no release has."""
    name = entry.name
    parts = name.split("/")
    if number >= MOST_FILES:
        raise ReleaseRefused(f"The app has more than {MOST_FILES:,} files.", cure="Keep data elsewhere.")
    if not entry.isreg() or entry.issparse():
        raise ReleaseRefused(f"{name[:200]!r} is no plain file.", cure="Only files are part of a release, no links.")
    if {"", ".", ".."} & set(parts) or "\\" in name or not name.isprintable() or not is_part(Path(name)):
        raise ReleaseRefused(f"{name[:200]!r} is no file of a release.", cure="Deploy with `circuit-script deploy`.")
    if not list(before) < parts or (before and parts[: len(before)] == list(before)):
        raise ReleaseRefused(f"{name[:200]!r} stands in the wrong place, or twice.", cure="Deploy again.")
    return name


class _Bounded:
    """The unpacked bytes of a gzipped file, as far as tarfile asks: forwards, in pieces, and not too many."""

    def __init__(self, source: bytes) -> None:
        self._file = gzip.GzipFile(fileobj=io.BytesIO(source))

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, place: int) -> int:
        if not self._file.tell() <= place <= MOST_UNPACKED:
            self._refuse(place)
        return self._file.seek(place)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= PIECE:
            raise tarfile.ReadError("a header is too long")
        if self._file.tell() + size > MOST_UNPACKED + PIECE:
            self._refuse(MOST_UNPACKED + 1)
        return self._file.read(size)

    def _refuse(self, place: int) -> None:
        if place <= MOST_UNPACKED:
            raise tarfile.ReadError("it goes backwards")
        raise ReleaseRefused(
            f"The app's files are more than {MOST_UNPACKED // 2**20} MB, unpacked.", cure="Keep data elsewhere."
        )


def _specs(handlers: Sequence[dict[str, Any]]) -> list[HandlerSpec]:
    """Raises msgspec.ValidationError for what is no handler here, and WrongTime."""
    found = []
    for each in handlers:
        try:
            spec = msgspec.convert(each, SentHandler).spec
        except CircuitError as error:  # of a limit that is none
            raise msgspec.ValidationError(error.detail) from None
        if spec.job is not None and spec.job.schedule is not None:
            _check_schedule(spec.job.schedule)
        found.append(spec)
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise msgspec.ValidationError("two handlers have one name")
    # Nothing is dropped that another version knows.
    if msgspec.msgpack.decode(msgspec.msgpack.encode(manifest_of(found))) != list(handlers):
        raise msgspec.ValidationError("its handlers say more than this version of the platform knows")
    return found


def _check_schedule(schedule: Schedule) -> None:
    """Raises msgspec.ValidationError, and WrongTime: it is counted with when the release goes live."""
    checked_zone(schedule.timezone)
    if schedule.cron is not None:
        checked_cron(schedule.cron)
    if not 0 <= schedule.jitter <= LONGEST_JITTER:
        raise msgspec.ValidationError("a jitter is a day at most")
    if schedule.every is not None and not SHORTEST_PERIOD <= schedule.every <= LONGEST_PERIOD:
        raise msgspec.ValidationError("a job runs every second at most, and every 366 days at least")
    if schedule.catch_up not in CATCH_UP:
        raise msgspec.ValidationError(f"what was missed is caught up as {', '.join(CATCH_UP)}")


def _check_report(report: dict[str, Any]) -> None:
    """Raises msgspec.ValidationError unless it says that every gate was passed, and when."""
    gates = msgspec.convert(report.get("deploy"), SentGates)
    if gates.validated_at.tzinfo is None or gates.validated_at > datetime.now(UTC) + AHEAD:
        raise msgspec.ValidationError("its gates were passed in the future: one of both clocks is wrong")
