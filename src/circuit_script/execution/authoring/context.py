"""What a handler is given: its records, where it stands, and how each record ends."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextvars import Token
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import Any, cast
from uuid import UUID

import msgspec

from circuit_script.execution.authoring.judged import mark, verdicts_of
from circuit_script.execution.authoring.meters import Meters
from circuit_script.execution.authoring.records import Record, Records, placed
from circuit_script.execution.decisions import Decision, decision_of
from circuit_script.execution.outcome import JOB, HttpRequest
from circuit_script.execution.protocol import NOBODY
from circuit_script.execution.retries import UNFIT, kinds_of, retry_after
from circuit_script.execution.session import Session, active, clean, current_record
from circuit_script.judgment.verdict import Verdict
from circuit_script.schemas.registered import SCHEMAS

MAX_REASON = 2000


class JobInfo(msgspec.Struct, frozen=True):
    """A job. ``enqueued_by`` is the handler that enqueued it, "schedule", or who did so by hand; ``execution`` the one
    of that handler. ``attempt`` is 1 for the first; ``scheduled_for`` the moment of a schedule's firing.

    In a finalizer it is the job that has ended: with its ``status`` ("succeeded", "dead" or "cancelled"), the
    ``reason`` if there is one, how many attempts it had, and its last ``execution``.
    """

    id: str
    name: str
    attempt: int = 1
    enqueued_by: str = ""
    execution: str | None = None
    scheduled_for: datetime | None = None
    status: str | None = None
    reason: str | None = None


class Context:
    """One call of a handler: a batch of records of one object, one event name and one tenant. Of a job, the only record
    is the job itself.

    ``object`` and ``event_name`` are what the trigger names ("Contact", "afterInsert"); ``tenant`` is the customer
    whose records these are; ``started_at`` is when the execution began, in seconds since 1970; ``new_records`` are the
    1 to 200 records; ``limits`` tells what is left. ``errors`` maps the place of a record that failed to its reason.

    Records that do not fit their object's schema, if the app has registered one, have failed before: they are not
    among ``new_records``.
    """

    def __init__(self, session: Session, word: memoryview) -> None:
        run = session.run
        self.object: str = run.object
        self.event_name: str = run.event
        self.tenant: str = run.tenant
        self.started_at: float = run.started_at
        self.new_records: Records = Records(run.records, word)
        self.limits: Meters = Meters(session)
        self.errors: dict[int, str] = {}
        self.decided: dict[int, float | None] = {}
        self.hints: dict[int, tuple[list[str], float]] = {}  # of records whose failure was an exception
        self._run = run
        self._word = word
        self._session = session
        self._unfit: frozenset[int] = frozenset()  # places of records that do not fit their schema
        if run.verdicts:
            mark(self.new_records, run.object, self._all_verdicts)
        session.context = self
        if SCHEMAS and (schema := SCHEMAS.get(run.object)) is not None and run.object != JOB:
            self._leave_out_unfit(schema)

    def _leave_out_unfit(self, schema: type[Any]) -> None:
        """Let each record fail that does not fit; what was deleted may be as it is."""
        from circuit_script.schemas.fitting import unfit

        if self.event_name.endswith("Delete"):
            return
        for place in self.new_records.places():
            try:
                wrong = unfit(schema, self.new_records.at(place))
            except Exception as error:  # of an author's validator
                self.tell(place, error)
                self.errors[place] = f"{self.object}: {reason_of(error)}"[:MAX_REASON]
                continue
            if wrong is not None:
                self.hints[place] = ([UNFIT], 0.0)
                self.errors[place] = clean(f"SchemaRefused: {self.object}: {wrong}")[:MAX_REASON]
        if self.errors:
            self._unfit = frozenset(self.errors)
            self.new_records.leave_out(self._unfit)

    @property
    def nothing_left(self) -> bool:
        """Whether no record of the batch fits its schema."""
        return bool(self._unfit) and not self.new_records

    @property
    def execution_id(self) -> UUID:
        """The id of this execution, by which its logs, usage and effects are found."""
        return UUID(self._run.execution)

    @property
    def request(self) -> HttpRequest | None:
        """The HTTP request that an endpoint answers; None in a trigger."""
        return self._run.request

    @property
    def arguments(self) -> dict[str, Any]:
        """What a job was enqueued with; a finalizer has its job's. Empty in a trigger and an endpoint."""
        return cast(dict[str, Any], self._asked().get("arguments") or {})

    @property
    def job(self) -> JobInfo | None:
        """The job that runs, or, in a finalizer, the one that has ended; None in a trigger and an endpoint."""
        if self._run.object != JOB:
            return None
        record = self._asked()
        usual = {"id": record["id"], "name": self.event_name, "attempt": self.event["attempt"]}
        return msgspec.convert({**usual, **(record.get("job") or {})}, JobInfo)

    def _asked(self) -> dict[str, Any]:
        if self._run.object != JOB:
            return {}
        return list.__getitem__(self.new_records, 0)

    @cached_property
    def old_records(self) -> list[Record | None]:
        """The last seen state of each record before this event, None where there is none. Parallel to new_records."""
        return [each for place, each in enumerate(self._all_old) if place not in self._unfit]

    @cached_property
    def _all_old(self) -> list[Record | None]:
        rows = msgspec.msgpack.decode(self._run.old, type=list[dict[str, Any] | None])
        return [None if row is None else placed(row, place) for place, row in enumerate(rows)]

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What is known of each event, parallel to new_records: ``id``, ``delivery``, ``source``, ``vendor_id``,
        ``received_at`` (seconds since 1970) and ``attempt`` (1 is the first). What was put back on the queue has
        ``original``, what arrived then, and ``replay``, the replay's id or None."""
        return [each for place, each in enumerate(self._all_events) if place not in self._unfit]

    @cached_property
    def _all_events(self) -> list[dict[str, Any]]:
        return msgspec.msgpack.decode(self._run.events, type=list[dict[str, Any]])

    @cached_property
    def verdicts(self) -> list[Mapping[str, Verdict]]:
        """What the Judgment Protocol found in each record, parallel to new_records: by the place of a text ("notes",
        "deal.items[2].title") its `Verdict`, with score, action, reason and findings; nothing where nothing was found.

        A text that is to be used as data only (``neutralize``) stands in its record as `Untrusted`, which is a str
        (msgspec encodes one with ``enc_hook=str`` only).
        """
        found = self._all_verdicts
        return [found.get(place, {}) for place in self.new_records.places()]

    @cached_property
    def _all_verdicts(self) -> dict[int, dict[str, Verdict]]:
        return {place: verdicts_of(each) for place, each in self._run.verdicts.items()}

    def event_at(self, place: int) -> dict[str, Any]:
        """The event of the record at this place of the batch."""
        return self._all_events[place]

    @property
    def event(self) -> dict[str, Any]:
        """The event, when the batch has exactly one. Raises ValueError otherwise."""
        if len(self.events) != 1:
            raise ValueError(f"This batch has {len(self.events)} events: use context.events.")
        return self.events[0]

    def changed(self, record: Record, field: str) -> bool:
        """Whether the field differs from the last seen state; True for a record that nobody has seen before."""
        old = self._all_old[self._place(record)]
        return old is None or old.get(field) != record.get(field)

    def record(self, record: Record) -> RecordScope:
        """``async with context.record(r):`` makes what is done inside r's own.

        An exception inside fails this record only; its effects do not leave, and the code after the block goes on.
        ``Retry`` and ``Cancel`` raised inside decide about this record. In a plain ``def`` write ``with``.
        """
        return RecordScope(self, self._place(record), self._word, self._session)

    def add_error(self, record: Record, reason: object) -> None:
        """Let this record fail with a reason, a ``Retry`` or a ``Cancel``; the others go on. The first one counts."""
        self._fail(self._place(record), reason)

    async def checkpoint(self, upto: Record) -> None:
        """Commit outcome and effects of the records up to and including ``upto`` now.

        What happens later (an exception, a limit, a crash, a retry) concerns only the records after it. Errors of the
        records so far stand as they are; what belongs to no record waits for the end. From a plain ``def`` call
        ``circuit_script.run(context.checkpoint(upto=record))``.

        Raises RequestRefused when the database refuses what was written.
        """
        place = self._place(upto)
        asked: dict[str, Any] = {
            "upto": place,
            "errors": [[each, reason] for each, reason in self.errors.items() if each <= place],
            "decided": [[each, after] for each, after in self.decided.items() if each <= place],
        }
        if self.hints:
            asked["hints"] = [[each, *hint] for each, hint in self.hints.items() if each <= place]
        await self._session.request("checkpoint", asked, object)

    def decide(self, decision: Decision) -> None:
        """Let every record of the batch that has not failed yet end as the handler decided."""
        if not self.new_records:
            raise RuntimeError(f"{type(decision).__name__} is for records: a request is answered or fails.")
        for place in self.new_records.places():
            self._fail(place, decision)

    def _fail(self, place: int, reason: object) -> None:
        if place in self.errors:
            return
        if isinstance(reason, type):
            reason = decision_of(reason) or reason
        if isinstance(reason, Decision):
            self.decided[place] = reason.after
            reason = reason.reason
        elif isinstance(reason, Exception):
            self.tell(place, reason)
        self.errors[place] = clean(str(reason))[:MAX_REASON]

    def tell(self, place: int, error: BaseException) -> None:
        """Keep what this exception of a record says of another attempt."""
        self.hints.setdefault(place, (kinds_of(error), retry_after(error)))

    def _place(self, record: Record) -> int:
        place = getattr(record, "place", None)
        if place is None:
            raise TypeError("This is not one of context.new_records (a copy of a record loses its place in the batch).")
        return cast(int, place)


class RecordScope:
    """A block that belongs to one record; ``with`` serves handlers that are plain functions."""

    def __init__(self, context: Context, place: int, word: memoryview, session: Session) -> None:
        self._context = context
        self._place = place
        self._word = word
        self._session = session
        self._before = NOBODY
        self._token: Token[int | None] | None = None

    def __enter__(self) -> Record:
        self._before = self._word[0]
        self._word[0] = self._place
        self._token = current_record.set(self._place)
        return self._context.new_records.at(self._place)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None and not isinstance(error, Exception):
            return False
        if error is not None:
            self._fail(error)
        if self._token is not None:
            current_record.reset(self._token)
        self._word[0] = self._before
        return error is not None

    async def __aenter__(self) -> Record:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.__exit__(kind, error, trace)

    def _fail(self, error: Exception) -> None:
        record = self._context.new_records.at(self._place)
        if isinstance(error, Decision):
            return self._context.add_error(record, error)
        reason = reason_of(error)
        if self._place not in self._context.errors:
            self._context.tell(self._place, error)
        self._context.add_error(record, reason)
        detail: Mapping[str, Any] = {"traceback": "".join(traceback.format_exception(error, limit=-8))[-4000:]}
        self._session.log({"level": "error", "message": reason, "context": detail})


def reason_of(error: BaseException) -> str:
    """An exception in one bounded line, also when its own __str__ fails."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = f"{type(error).__name__} (its message cannot be shown)"
    return clean(text).removesuffix(": ")[:MAX_REASON]


def current_context() -> Context | None:
    """The context of the running handler; None outside of one."""
    running = active()
    return cast(Context, running.context) if running is not None else None
