"""What a trial showed: outcome, effects, log and usage, one part per execution."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from circuit_script.execution.outcome import Fields

_GRAVITY = ("succeeded", "cancelled", "deferred", "held", "partial", "failed", "breached")


@dataclass(frozen=True, slots=True)
class Written:
    """A write to the CRM. ``op`` is insert, update, upsert or delete; ``record`` the id of the batch's record that it
    belongs to, None when it leaves only if every record succeeded; ``home`` the connector that keeps the record."""

    op: str
    object: str
    id: str
    fields: Fields
    record: str | None = None
    home: str = "local"


@dataclass(frozen=True, slots=True)
class Sent:
    """A message to the outside world, for the courier to deliver. ``id`` is its effect's."""

    connector: str
    target: str
    payload: Fields
    record: str | None = None
    id: str = field(default="", compare=False)


Left = Written | Sent


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the author's log. ``record`` is the id of the record that it was written for, if any."""

    level: str
    message: str
    fields: Fields
    record: str | None = None


@dataclass(frozen=True, slots=True)
class TrialBatch:
    """One execution. ``errors`` maps the id of a failed record to its reason.

    ``usage`` and ``ceilings`` have the names of the limits: times in seconds, memory and log in bytes, the rest counts.
    Of records that are ``held`` nothing ran.
    ``decided`` maps the ids of records that the author put off to seconds, or to None: never again.
    ``suspect`` is the record that was worked on when the whole batch failed; the road would run it alone, and then the
    others.
    """

    execution: UUID
    records: tuple[str, ...]
    status: str
    duration: float
    usage: Mapping[str, float]
    ceilings: Mapping[str, float]
    reason: str = ""
    detail: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    decided: Mapping[str, float | None] = field(default_factory=dict)
    suspect: str | None = None
    writes: tuple[Written, ...] = ()
    sends: tuple[Sent, ...] = ()
    discarded: tuple[Left, ...] = ()
    log: tuple[Line, ...] = ()
    committed: bool = False
    crashed: bool = False  # it ended before its handler did


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A handler's run over all records that it was given; the properties look at its batches together."""

    handler: str
    object: str
    event: str
    tenant: str
    batches: tuple[TrialBatch, ...]
    answer: HttpAnswer | None = None
    retried: tuple[TrialBatch, ...] = ()  # executions whose records ran again, while something was to fail

    @property
    def status(self) -> str:
        """succeeded, partial (some records failed), cancelled (all of them, by the author), deferred (some wait for
        money or a quota), held (their texts are taken for attacks, and no handler saw them), failed or breached (a
        limit was crossed)."""
        found = {batch.status for batch in self.batches}
        if len(found) > 1 and "succeeded" in found:
            return "partial"
        return max(found, key=_GRAVITY.index, default="succeeded")

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"

    @property
    def execution(self) -> UUID | None:
        """The first execution."""
        return self.batches[0].execution if self.batches else None

    @property
    def reason(self) -> str:
        """Why it did not succeed: the first batch's reason that has one."""
        return next((batch.reason for batch in self.batches if batch.reason), "")

    @property
    def detail(self) -> str:
        """The traceback of the first batch that has one."""
        return next((batch.detail for batch in self.batches if batch.detail), "")

    @property
    def errors(self) -> dict[str, str]:
        return {key: reason for batch in self.batches for key, reason in batch.errors.items()}

    @property
    def held(self) -> dict[str, str]:
        """Records that the Judgment Protocol holds for a person, with the reasons; they are among ``errors``, too."""
        return {key: why for batch in self.batches if batch.status == "held" for key, why in batch.errors.items()}

    @property
    def decided(self) -> dict[str, float | None]:
        return {key: after for batch in self.batches for key, after in batch.decided.items()}

    @property
    def writes(self) -> list[Written]:
        return [each for batch in self.batches for each in batch.writes]

    @property
    def sends(self) -> list[Sent]:
        return [each for batch in self.batches for each in batch.sends]

    @property
    def discarded(self) -> list[Left]:
        return [each for batch in self.batches for each in batch.discarded]

    @property
    def log(self) -> list[Line]:
        return [each for batch in self.batches for each in batch.log]

    @property
    def records(self) -> list[str]:
        return [each for batch in self.batches for each in batch.records]

    @property
    def usage(self) -> dict[str, float]:
        """Per limit the most that one execution used."""
        names = {name for batch in self.batches for name in batch.usage}
        return {name: max(batch.usage.get(name, 0) for batch in self.batches) for name in names}

    @property
    def ceilings(self) -> dict[str, float]:
        """What one execution may use; of messages, what the largest batch may send."""
        names = {name for batch in self.batches for name in batch.ceilings}
        return {name: max(batch.ceilings.get(name, 0) for batch in self.batches) for name in names}

    @property
    def duration(self) -> float:
        """Seconds that the executions took together."""
        return sum(batch.duration for batch in self.batches)

    @property
    def committed(self) -> bool:
        return bool(self.batches) and all(batch.committed for batch in self.batches)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What an endpoint answered. ``body`` is all of it, also where it would have been streamed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    streamed: bool = False

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is not."""
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The server-sent events of a streamed answer: ``event`` and ``data``, read as JSON where it is."""
        blocks = self.text.replace("\r\n", "\n").split("\n\n")
        return [found for block in blocks if (found := _event(block.split("\n")))]


def _event(lines: Sequence[str]) -> dict[str, Any]:
    event: dict[str, Any] = {}
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif name in ("event", "id"):
            event[name] = value.removeprefix(" ")
    if not data:
        return event
    text = "\n".join(data)
    try:
        return {"event": "message", **event, "data": json.loads(text)}
    except ValueError:
        return {"event": "message", **event, "data": text}
