"""The parent's answer to what a governed child asks for: counted, bounded, journaled, and held where it must be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

import httpx
import msgspec

from circuit_script.clock import now
from circuit_script.connectors.connector import CRM, Fields, Operation
from circuit_script.connectors.homes import LOCAL, HomedCRM
from circuit_script.enrichment import Enrichment
from circuit_script.errors import DatabaseUnavailable, QueryRefused, RequestRefused
from circuit_script.execution.authoring.jobs import MOST_ARGUMENTS
from circuit_script.execution.broker import enriching, model_calls, outside
from circuit_script.execution.broker.callouts.fetch import CalloutParts, no_quota
from circuit_script.execution.broker.choices import Choices
from circuit_script.execution.broker.enriching import Enriching
from circuit_script.execution.broker.judged import Judged
from circuit_script.execution.broker.messages import nowhere
from circuit_script.execution.broker.model_calls import ModelCalls
from circuit_script.execution.broker.outside import Journal, Outside
from circuit_script.execution.broker.queries import Overlay, Reads
from circuit_script.execution.broker.traced import traced
from circuit_script.execution.broker.versions import shown, versions_of
from circuit_script.execution.outcome import JOB, JOBS, Hint, Work, bounded
from circuit_script.execution.timing import LONGEST_DELAY
from circuit_script.governor import MB, REPEATS, Meter, Usage
from circuit_script.judgment.counts import VerdictCounts
from circuit_script.llm import Models
from circuit_script.telemetry.spans import Recorder
from circuit_script.tenants.entitlement import NOTICE

if TYPE_CHECKING:  # it brings numbers and expressions along, which only who makes one needs
    from circuit_script.judgment.protocol import JudgmentProtocol

HELD_BYTES = 32 * MB
MAX_KEY = 255  # characters
CLOCKS_APART = 60.0  # seconds that a child's clock may be ahead of ours


class Held(Overlay, Protocol):
    """Where writes and sends wait for the outcome."""

    def write(
        self,
        op: str,
        object_: str,
        rows: Sequence[Any],
        owner: int | None,
        versions: Mapping[str, int] | None = None,
        seen: Mapping[str, Fields] | None = None,
    ) -> list[str]: ...

    def send(
        self,
        connector: str,
        operation: str,
        target: str,
        payload: Fields,
        owner: int | None,
        *,
        makes_id: bool = False,
        if_version: str | None = None,
    ) -> UUID: ...


class UniqueJobs(Protocol):
    """The id of the job of this tenant, name and key that waits or runs; None when there is none."""

    async def __call__(self, tenant: str, name: str, key: str) -> str | None: ...


class Taping(Protocol):
    """Hears what an execution reads, and changes nothing of it."""

    def crm(self, crm: CRM) -> CRM: ...

    def unique_jobs(self, ask: UniqueJobs | None) -> UniqueJobs | None: ...


class Checkpoint(Protocol):
    """Commits the records up to ``upto``, which have these errors and decisions. Raises RequestRefused."""

    async def __call__(
        self, upto: int, errors: Mapping[int, str], decided: Mapping[int, float | None], hints: Mapping[int, Hint]
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class BrokerParts:
    """What the brokers of one worker share. ``knows`` says whether a connector has an address of this name,
    ``declared`` what it promises of an operation, ``home`` which one keeps an object of a tenant; ``repeats`` is how
    often an execution may make the same call and learn nothing; without ``judgment`` nothing that is said to models,
    or by them, is judged; ``verdicts`` counts what was."""

    crm: CRM
    client: httpx.AsyncClient
    knows: Callable[[str, str], bool]
    declared: Callable[[str, str], Operation | None] = lambda connector, operation: None
    callouts: CalloutParts = field(default_factory=CalloutParts)
    repeats: int = REPEATS
    models: Models | None = None
    unique_jobs: UniqueJobs | None = None
    home: Callable[[str, str], str] = lambda tenant, object_: LOCAL
    enrichment: Enrichment | None = None
    judgment: JudgmentProtocol | None = None
    verdicts: VerdictCounts = field(default_factory=VerdictCounts)


class ExecutionBroker:
    """One execution's broker. Without a ``checkpoint`` those of the handler change nothing: all is committed at the
    end. With a ``recorder`` each request is a span of its trace; with a ``tape`` what is read is noted on it."""

    def __init__(
        self,
        work: Work,
        parts: BrokerParts,
        *,
        held: Held,
        journal: Journal,
        log: Callable[[dict[str, Any]], None],
        remaining: Callable[[], float],
        checkpoint: Checkpoint | None = None,
        recorder: Recorder | None = None,
        tape: Taping | None = None,
    ) -> None:
        self._database_away = False
        self._recorder = recorder
        self._work = work
        self._meter = Meter(work.limits, len(work.records), parts.repeats)
        self._meter.usage.depth = work.depth
        self._home = parts.home
        self._read: dict[tuple[str, str], Fields] = {}  # of vendors, which may know more than we do
        self._knows = parts.knows
        self._declared = parts.declared
        self._held = held
        self._log = log

        def tell(said: str) -> None:
            log({"level": "warning", "message": said})

        self.choices = Choices(work, tell)
        self._commit = checkpoint
        self._unique_jobs = parts.unique_jobs if tape is None else tape.unique_jobs(parts.unique_jobs)
        self._held_bytes = 0
        self._known: set[tuple[str, str]] = {(work.object, str(row.get("id"))) for row in work.records}
        crm = parts.crm.of(work.tenant, self._read) if isinstance(parts.crm, HomedCRM) else parts.crm
        crm = crm if tape is None else tape.crm(crm)
        self._reads = Reads(work, crm=crm, held=held, meter=self._meter, known=self._known)
        # What is done about a quota that is used up does not count against it.
        callouts = replace(parts.callouts, spend=no_quota) if work.object == NOTICE else parts.callouts
        self._outside = Outside(
            work, meter=self._meter, journal=journal, client=parts.client, remaining=remaining, parts=callouts
        )
        self._outside.recorder, self._outside.choices = recorder, self.choices
        self._models = ModelCalls(
            work,
            meter=self._meter,
            journal=journal,
            models=parts.models,
            remaining=remaining,
            choices=self.choices,
            judged=None if parts.judgment is None else Judged(parts.judgment, work, tell, parts.verdicts),
        )
        self._outside.put_off = self._models.put_off
        self._enriching = Enriching(
            work,
            meter=self._meter,
            journal=journal,
            client=parts.client,
            remaining=remaining,
            parts=callouts,
            enrichment=parts.enrichment,
        )
        self._enriching.put_off, self._enriching.recorder = self._models.put_off, recorder

    @property
    def away(self) -> Literal["database", "vendor"] | None:
        """Who could not be reached, if anybody: what cannot be read now can be later."""
        if self._database_away:
            return "database"
        return "vendor" if self._reads.away else None

    @property
    def usage(self) -> Usage:
        """What the execution has used so far."""
        return self._meter.usage

    @property
    def deferred(self) -> float | None:
        """The seconds until a model call may be made that was put off; None when none was."""
        return self._models.deferred

    @property
    def put_off(self) -> set[float]:
        """The seconds for which something was put off that waits for money or a quota; one object until the end."""
        return self._models.put_off

    def close(self) -> None:
        """The execution is over: nobody waits for answers any more."""
        self._models.close()

    async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Answer one request of the child.

        Raises RequestRefused for what it may not have, and LimitExceeded, for ever after the first one.
        """
        self._meter.go_on()
        if self._recorder is None:
            return await self._serve(verb, arguments)
        return await traced(self._recorder, self._serve, verb, arguments)

    async def _serve(self, verb: str, arguments: dict[str, Any]) -> Any:
        try:
            if (handle := _VERBS.get(verb)) is not None:
                return await handle(self, arguments)
            if (ask := outside.VERBS.get(verb)) is not None:
                return await ask(self._outside, arguments)
            if (enrich := enriching.VERBS.get(verb)) is not None:
                found = await enrich(self._enriching, arguments)
                if isinstance(found, dict) and found.get("rows"):
                    self.choices.read("an enrichment's answer")
                return found
            if (call := model_calls.VERBS.get(verb)) is not None:
                return await call(self._models, arguments)
            raise RequestRefused(f"there is no request {verb!r}.")
        except DatabaseUnavailable as error:
            self._database_away = True
            raise RequestRefused(f"{verb}: the database is away: {error.detail}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RequestRefused(f"{verb}: {type(error).__name__}: {error}.") from None

    def log(self, line: dict[str, Any]) -> None:
        """Take one log line; its record's place becomes the record's id.

        Raises LimitExceeded when it is over the limit; the line is then dropped.
        """
        size = len(str(line.get("message", ""))) + len(str(line.get("context") or ""))
        self._meter.spend("log_bytes", size)
        if line.get("record") is not None:
            line["record"] = self._id_at(line["record"])
        self._log(line)

    def _id_at(self, place: Any) -> str | None:
        """The id of the record at this place, for whoever looks for what concerns one record."""
        if not isinstance(place, int) or not 0 <= place < len(self._work.records):
            return None
        identifier = self._work.records[place].get("id")
        return None if identifier is None else str(identifier)

    def _hold(self, value: Any) -> None:
        """Count what is held for the outcome: it waits in the worker's memory, and leaves in one statement."""
        encoded = msgspec.msgpack.encode(value, enc_hook=str)
        self._meter.changed(encoded)
        self._held_bytes += len(encoded)
        self._meter.hold("effect_bytes", self._held_bytes, HELD_BYTES)

    async def _dml(self, asked: dict[str, Any]) -> dict[str, list[str]]:
        object_, op, rows = str(asked["object"]), str(asked["op"]), asked["rows"]
        home = self._home(self._work.tenant, object_)
        declared = self._declared(home, op)
        if op == "delete" or (declared is not None and object_ in declared.irreversible_for):
            self.choices.check(home, op, target=object_)
        self._meter.spend("dml_statements")
        self._meter.spend("dml_rows", len(rows))
        self._hold(rows)
        versions = versions_of(op, asked.get("versions"))
        owner = self._work.owner(asked.get("record"))
        if home != LOCAL:
            self._must_be_possible(home, op, object_, rows, versions)
            read = {str(row["id"]): self._read.get((object_, str(row["id"]))) for row in rows if _has_id(row)}
            seen = {key: row for key, row in read.items() if row is not None}
            return {"ids": self._held.write(op, object_, rows, owner, versions, seen)}
        if op in ("update", "delete"):
            await self._must_exist(op, object_, rows)
        ids = self._held.write(op, object_, rows, owner, versions)
        self._known.update((object_, each) for each in ids)
        return {"ids": ids}

    def _must_be_possible(
        self, home: str, op: str, object_: str, rows: Sequence[Any], versions: Mapping[str, int] | None
    ) -> None:
        """What the home of an object cannot do is refused at once. Whether a record is there, only its vendor knows."""
        declared = self._declared(home, op)
        if declared is None:
            raise RequestRefused(f"{op} {object_}: {home} cannot do that.")
        if versions is not None and not declared.if_version:
            raise RequestRefused(
                f"{op} {object_}: its home is {home}, which knows no versions.",
                cure="Leave if_version out, or keep the object here: [crm.objects] in circuit.toml.",
            )
        if op == "insert" and declared.makes_ids and any(_has_id(row) for row in rows):
            raise RequestRefused(
                f"insert {object_}: its home is {home}, which makes the ids of its records.",
                cure="Leave the id out; CircuitDB returns one that stands for the record's.",
            )

    async def _must_exist(self, op: str, object_: str, rows: Sequence[Any]) -> None:
        """An update of a record that nobody has seen is an error, as it is with every CRM."""
        unseen = [
            str(row["id"])
            for row in rows
            if isinstance(row, dict) and row.get("id") and (object_, str(row["id"])) not in self._known
        ]
        if not unseen:
            return
        found = await self._reads.get(object_, unseen)
        missing = [key for key, row in zip(unseen, found, strict=True) if row is None]
        if missing:
            raise RequestRefused(f"{op} {object_}: there is no record {missing[0]!r}.")
        self._known.update((object_, key) for key in unseen)

    async def _get(self, asked: dict[str, Any]) -> list[Fields | None]:
        self._meter.spend("db_queries")
        object_, ids = str(asked["object"]), [str(each) for each in asked["ids"]]
        stored = await self._reads.get(object_, ids)
        rows = self._held.overlay_rows(object_, ids, stored)
        self._meter.spend("db_rows", sum(row is not None for row in rows))
        self._known.update((object_, key) for key, row in zip(ids, rows, strict=True) if row is not None)
        self.choices.rows(object_, rows)
        return shown(rows, stored) if asked.get("versions") else rows

    async def _query(self, asked: dict[str, Any]) -> Any:
        return await self._told(asked, self._reads.query)

    async def _page(self, asked: dict[str, Any]) -> Any:
        return await self._told(asked, self._reads.page)

    async def _count(self, asked: dict[str, Any]) -> Any:
        return await self._told(asked, self._reads.count)

    async def _explain(self, asked: dict[str, Any]) -> Any:
        return await self._told(asked, self._reads.explain)

    async def _told(self, asked: dict[str, Any], read: Callable[[dict[str, Any]], Awaitable[Any]]) -> Any:
        """Answer a refusal as a value where the child asks for that: it raises it with all that it says."""
        try:
            found = await read(asked)
        except QueryRefused as refused:
            if not asked.get("told"):
                raise
            return {"refused": [refused.detail, refused.cure, refused.page, refused.position]}
        rows = found.get("rows") if isinstance(found, dict) else found
        if isinstance(rows, list):
            self.choices.rows(str(asked.get("object") or "a record"), rows)
        return found

    async def _send(self, asked: dict[str, Any]) -> dict[str, str]:
        connector, target = str(asked["connector"]), str(asked["to"])
        if not self._knows(connector, target):
            raise nowhere(connector, target)
        if not isinstance(asked["payload"], dict):
            raise RequestRefused(f"a payload is a mapping, not a {type(asked['payload']).__name__}.")
        operation, version = str(asked["operation"]), asked.get("if_version")
        declared = self._declared(connector, operation)
        if version is not None and not (declared and declared.if_version):
            raise RequestRefused(f"{connector}.{operation} cannot be made to depend on a version.")
        # Where nobody says that it can be taken back, it cannot.
        if declared is None or declared.irreversible or target in declared.irreversible_for:
            self.choices.check(connector, operation, target=target)
        self._meter.spend("messages")
        self._hold(asked["payload"])
        held = self._held.send(
            connector,
            operation,
            target,
            asked["payload"],
            self._work.owner(asked.get("record")),
            makes_id=bool(declared and declared.makes_ids),
            if_version=None if version is None else str(version),
        )
        return {"id": str(held)}

    async def _enqueue(self, asked: dict[str, Any]) -> dict[str, str]:
        name, arguments, key = str(asked["job"]), asked["arguments"], asked["unique"]
        if not isinstance(arguments, dict) or len(msgspec.json.encode(arguments)) > MOST_ARGUMENTS + len(arguments) * 8:
            raise RequestRefused(f"{name}: the arguments of a job are a mapping of at most {MOST_ARGUMENTS:,} bytes.")
        self.choices.check(JOBS, "enqueue", target=name)
        self._meter.spend("jobs")
        if key is not None and self._unique_jobs is not None:
            there = await self._unique_jobs(self._work.tenant, name, str(key))
            if there is not None and not self._is_own(there):
                return {"id": there}
        due = None if asked["due"] is None else float(asked["due"])
        if due is not None and not 0 <= due <= now().timestamp() + LONGEST_DELAY + CLOCKS_APART:
            raise RequestRefused(f"{name}: no job is made for the moment {due}.")
        payload = {
            "arguments": arguments,
            "due": due,
            "unique": None if key is None else str(key)[:MAX_KEY],
            "by": self._work.handler,
            "execution": str(self._work.execution),
        }
        self._hold(payload)
        held = self._held.send(JOBS, "enqueue", name[:MAX_KEY], payload, self._work.owner(asked.get("record")))
        return {"id": str(held)}

    def _is_own(self, job: str) -> bool:
        """Whether it is the job that runs here: when what it enqueues is made, it has ended."""
        return self._work.object == JOB and any(str(each.get("id")) == job for each in self._work.records)

    async def _checkpoint(self, asked: dict[str, Any]) -> None:
        size = len(self._work.records)
        upto = asked["upto"]
        if not isinstance(upto, int) or not 0 <= upto < size:
            raise ValueError(f"there is no record {upto!r} in this batch")
        errors = {int(place): str(reason) for place, reason in asked["errors"]}
        decided = {int(place): bounded(after) for place, after in asked["decided"]}
        hints = {
            int(place): Hint(tuple(map(str, kinds)), bounded(after) or 0.0)
            for place, kinds, after in asked.get("hints", ())
        }
        if self._commit is not None:
            await self._commit(upto, errors, decided, hints)


def _has_id(row: Any) -> bool:
    return isinstance(row, dict) and row.get("id") not in (None, "")


# Of the class, not of the instance: one that holds its own methods waits for the garbage collector.
_VERBS: Mapping[str, Callable[[ExecutionBroker, dict[str, Any]], Any]] = {
    "dml": ExecutionBroker._dml,
    "query": ExecutionBroker._query,
    "page": ExecutionBroker._page,
    "count": ExecutionBroker._count,
    "explain": ExecutionBroker._explain,
    "get": ExecutionBroker._get,
    "send": ExecutionBroker._send,
    "enqueue": ExecutionBroker._enqueue,
    "checkpoint": ExecutionBroker._checkpoint,
}
