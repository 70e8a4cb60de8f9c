"""What an execution is given and how it can end: frozen values that both sides share."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from circuit_script.execution.retries import Retries
from circuit_script.execution.timing import Schedule
from circuit_script.governor import LOOPS, Limits, Usage, amount

Fields = dict[str, Any]
PlainVerdict = tuple[float, str, str | None, str | None, list[Any]]

JOB = "Job"  # the object of jobs: their event is the handler's name, their record's id the job's
JOBS = "jobs"  # the connector that takes enqueued jobs to the queue
VERSION = "@version"  # in what a child reads: the version of the record
LONGEST_RETRY = 30 * 86_400  # seconds that an author may put a record off
EACH, ALL_OR_NONE = "each", "all-or-none"  # what becomes of a batch when one of its records fails
SPREAD = 300  # seconds over which those come back who wait for the same moment


@dataclass(frozen=True, slots=True)
class Way:
    """One path by which an endpoint is reached, with its methods.

    ``path`` is a regular expression that matches the whole path of a URL, decoded, in time linear in its length;
    ``shown`` is what a person reads. Of all ways of a kind that match, the one of the lowest ``rank`` is meant, and of
    these the first.
    """

    methods: tuple[str, ...]
    path: str
    shown: str = ""
    rank: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """How an endpoint is reached.

    ``deadline`` is in seconds from the request's arrival; ``auth`` is "key" (an API key, which names the tenant) or
    "none"; ``kind`` is "endpoint" for ``@endpoint`` and "web" for routes of a WSGI or ASGI app.
    """

    ways: tuple[Way, ...]
    deadline: float = 30.0
    auth: str = "key"
    kind: str = "endpoint"

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of all its ways; one way may have fewer."""
        return tuple(dict.fromkeys(method for way in self.ways for method in way.methods))

    @property
    def paths(self) -> tuple[str, ...]:
        """The regular expressions of its ways."""
        return tuple(dict.fromkeys(way.path for way in self.ways))

    @property
    def shown(self) -> tuple[str, ...]:
        """Its paths for a person: "/api/leads/{lead_id}"."""
        return tuple(dict.fromkeys(way.shown or way.path for way in self.ways))


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as an endpoint gets it. ``path`` is percent-encoded, as it came; header names are lower-case."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    scheme: str = "http"
    client: str = ""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What makes a handler a job. ``kind`` is "queueable", "scheduled" or "finalizer".

    ``takes`` are the names of its arguments, ``needs`` those without a default, ``texts`` those annotated as ``str``;
    ``anything`` says that it takes others, too. ``finalizer`` names the handler that runs when it has ended.
    """

    kind: str
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    anything: bool = False
    finalizer: str | None = None
    schedule: Schedule | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hint:
    """What the exception of a failure says of another attempt: ``kinds`` are the names of its class and of those above
    it, ``after`` the least seconds that a vendor asked for (Retry-After)."""

    kinds: tuple[str, ...] = ()
    after: float = 0.0


NO_HINT = Hint()


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """One handler as the app declares it. ``routes`` are a trigger's (object, event) pairs; an endpoint has none.

    ``concurrency`` is how many executions of one tenant may share a child; ``egress`` are the hosts that it may call,
    None for those of the app; ``budget`` is what it may spend on models in a day, in US dollars, None for no bound of
    its own; ``at_ceiling`` is what happens when money or a quota is used up ("refuse", "defer", "cheaper"), None for
    what its tenant says. ``retries`` is how often it is tried, None for what circuit.toml says; ``max_age`` are the
    seconds after which an event is not run any more; with ``coalesce`` only the newest waiting update of a record runs;
    ``batch`` is "each" (a record fails alone) or "all-or-none". ``release`` is the recorded release of which a replay
    runs it, None in the live one. ``allow_irreversible`` names what cannot be taken back and a model may choose
    although untrusted text was read (`execution.irreversible`).
    """

    name: str
    routes: tuple[tuple[str, str], ...]
    batch_size: int = 200
    limits: Limits = field(default_factory=Limits)
    share_child: bool = False
    echoes: bool = False
    file: str = ""
    line: int = 0
    doc: str = ""
    endpoint: EndpointSpec | None = None
    concurrency: int = 1
    egress: tuple[str, ...] | None = None
    budget: float | None = None
    at_ceiling: str | None = None
    job: JobSpec | None = None
    retries: Retries | None = None
    max_age: float | None = None
    coalesce: bool = False
    batch: str = EACH
    release: int | None = None
    allow_irreversible: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """One call of one handler, for one tenant: a batch (``records``, ``old`` and ``events`` are parallel), or a
    ``request`` to an endpoint, without records. ``egress`` are the only hosts that it may call, None for the app's.
    ``budget`` and ``at_ceiling`` are what its handler says of money.
    Up to ``concurrency`` of one tenant and handler may share a child. ``depth`` is its place in a chain of executions,
    of which each caused the next. ``allow_irreversible`` is what its handler lets a model choose in any case.
    ``verdicts`` is what was found in texts of some records, by their place, and within a record by its field: score,
    action, source, field, and findings as lists, in the order of `Verdict` and `Finding`."""

    execution: UUID
    handler: str
    tenant: str
    object: str
    event: str
    records: Sequence[Fields]
    old: Sequence[Fields | None]
    events: Sequence[Fields]
    limits: Limits
    started_at: float = 0.0
    share_child: bool = False
    request: HttpRequest | None = None
    budget: float | None = None
    at_ceiling: str | None = None
    egress: tuple[str, ...] | None = None
    concurrency: int = 1
    depth: int = 1
    allow_irreversible: tuple[str, ...] = ()
    verdicts: Mapping[int, Mapping[str, PlainVerdict]] = field(default_factory=dict)

    def owner(self, said: Any) -> int | None:
        """The index of the record that a request of the child says it is made for. Raises ValueError."""
        if said is not None and (not isinstance(said, int) or not 0 <= said < len(self.records)):
            raise ValueError(f"there is no record {said!r} in this batch")
        return said


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned. ``errors`` maps the index of a failed record to its reason.

    ``decided`` says of some of them what the author wants: the seconds until the next attempt, None for never.
    ``hints`` are what the exceptions of others say. ``discard``: an endpoint answered no (a status of 400 or more), so
    that nothing that it wrote may leave.
    """

    usage: Usage
    errors: Mapping[int, str] = field(default_factory=dict)
    decided: Mapping[int, float | None] = field(default_factory=dict)
    discard: bool = False
    hints: Mapping[int, Hint] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, left its process, or crashed it. ``suspect`` is the index of the record it worked on.

    ``blameless`` says that the platform ended it, so that it does not count as an attempt; ``disturbed``, that the
    process ended which it shared with others, or that they took its time, so that it runs again, alone: nobody knows
    yet whose fault it was. ``hint`` is what its exception says of another attempt.
    """

    reason: str
    usage: Usage
    detail: str = ""
    suspect: int | None = None
    blameless: bool = False
    disturbed: bool = False
    hint: Hint = NO_HINT


@dataclass(frozen=True, slots=True)
class Breached:
    """A limit was crossed; the parent's verdict.

    ``said`` is what more there is to say (of a loop: its cycle); ``where`` is the author's line ("triggers/a.py:12"),
    where it is known; ``detail`` is what the handler was doing: its stack, its traceback.
    """

    limit: str
    used: float
    ceiling: float
    usage: Usage
    suspect: int | None = None
    detail: str = ""
    said: str = ""
    where: str = ""

    @property
    def reason(self) -> str:
        if self.limit in LOOPS:
            text = f"loop found: {self.said}"
        else:
            text = f"limit {self.limit} exceeded: {amount(self.limit, self.used)} of {amount(self.limit, self.ceiling)}"
            text += f": {self.said}" if self.said else ""
        return f"{text}, at {self.where}" if self.where else text


Outcome = Succeeded | Failed | Breached


def spread(after: float) -> float:
    """The seconds for which something waits until a moment for which others wait, too: they come back one by one."""
    return min(max(1.0, after) + random.uniform(0.0, SPREAD), float(LONGEST_RETRY))


def bounded(after: float | None) -> float | None:
    """An author's delay within what one may be: a child can say anything. None is never."""
    return None if after is None else min(max(0.0, after), float(LONGEST_RETRY))
