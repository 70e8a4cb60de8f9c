"""What a model may not choose: something that cannot be taken back, once untrusted text was read.

This holds whatever the screens of `judgment` say. Three things must come together for a refusal:

1. The act cannot be taken back (`Operation.irreversible`, `execution.irreversible`), and the handler does not allow it.
2. The execution has read text from outside: its records or its request, a query's rows, the answer of a host, the
   arguments of a job, the result of a tool. ``tainted`` is the first of them. Where it came from counts, not what a
   screen thought of it.
3. A model chose it. What a child says is done within a tool was chosen, whenever it comes: a tool may leave tasks
   behind, and an answer may have been given to another execution. Of what it says nothing about, all is chosen while a
   call is open, which is from the answer that has it until the next answer after its result; the broker has seen each
   answer. What it says its author decides is the author's, also while agents work beside it; only where calls of tools
   were given to code that marks no tools (a loop that is not an agent's, tools that an agent leaves to others) it is
   not believed until their conversation has ended.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from circuit_script.connectors.connector import Fields
from circuit_script.errors import IrreversibleRefused
from circuit_script.execution import deciding
from circuit_script.execution.broker.traced import address
from circuit_script.execution.irreversible import CHANGING, HTTP, allowed_of, named
from circuit_script.execution.outcome import JOB, Work
from circuit_script.telemetry.spans import note
from circuit_script.tenants.entitlement import NOTICE

log = structlog.get_logger()

MOST_TOLD = 20  # lines in the author's log
MOST_NAME = 120  # characters of a name in a reason
DEEPEST = 20
READING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
# What a tool answers that says nothing: no text, a number, a truth, the id of what it has asked for.
_BARE = re.compile(
    r"\s*(?:[-+]?[0-9.]{0,30}|null|None|true|false|True|False|\"?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\"?)\s*"
)


class Choices:
    """Of one execution. ``tainted`` says what untrusted text it has read first, empty for none; ``refused`` counts."""

    __slots__ = ("_allowed", "_open", "_tell", "_unmarked", "_work", "refused", "tainted")

    def __init__(self, work: Work, tell: Callable[[str], None] = lambda said: None) -> None:
        self._work = work
        self._tell = tell
        self._allowed = allowed_of(work.allow_irreversible)
        self._open: Counter[str] = Counter()  # calls, by id, without an answer after their result
        self._unmarked: set[str] = set()  # those of them whose tools nobody marks
        self.refused = 0
        self.tainted = given(work)

    # -- what was read ----------------------------------------------------------------------------

    def read(self, what: str) -> None:
        """Text from outside reaches the execution."""
        if not self.tainted:
            self.tainted = what[: 4 * MOST_NAME]

    def rows(self, object_: str, rows: Iterable[Fields | None]) -> None:
        """Records reach it: nobody knows who has written them."""
        if not self.tainted and (found := next((row for row in rows if row), None)) is not None:
            self.read(f"{object_} {str(found.get('id', ''))[:MOST_NAME]} by a query")

    # -- what a model says ------------------------------------------------------------------------

    def asked(self, messages: Sequence[Mapping[str, Any]]) -> frozenset[str]:
        """A model is asked: the calls whose results it is told. They are over when it has answered. Those of earlier
        turns were over before; another conversation may have the same ids."""
        fresh: list[str] = []
        for each in messages:
            match each.get("role"):
                case "assistant":
                    fresh.clear()
                case "tool" | "function":
                    fresh.append(str(each.get("tool_call_id") or each.get("name") or ""))
                    if not self.tainted and not _is_bare(each.get("content")):
                        name = each.get("name") or name_of(messages, each.get("tool_call_id"))
                        self.read(f"the result of the tool {str(name or '')[:MOST_NAME]}".rstrip())
            if not self.tainted and (picture := _fetched(each.get("content"))):
                self.read(f"the picture {picture}")
        return frozenset(fresh)

    def over(self, results: Iterable[str]) -> None:
        """These calls have had an answer after their result."""
        for each in results:
            self._open[each] -= 1
            if self._open[each] <= 0:
                del self._open[each]
                self._unmarked.discard(each)

    def calls(self, calls: Iterable[tuple[str, str]], *, outputs: Iterable[str], marks: bool) -> None:
        """Calls of tools (id, name) in an answer, or in what has come of it so far. Those of ``outputs`` are data, and
        end the run; ``marks`` says that the tools are run by an agent, which marks what they ask for."""
        known = frozenset(outputs)
        for identifier, name in calls:
            if (identifier or name) and name not in known:
                self._open[identifier or name] += 1
                if not marks:
                    self._unmarked.add(identifier or name)

    @property
    def chosen(self) -> bool:
        """Whether what is asked for now is a model's choice."""
        match deciding.asking.get():
            case deciding.MODEL:
                return True
            case deciding.AUTHOR:
                return bool(self._unmarked)
            case _:
                return bool(self._open)

    # -- what it may not choose -------------------------------------------------------------------

    def check(self, connector: str, operation: str, *, target: str = "") -> None:
        """Something that cannot be taken back is about to be done. Raises IrreversibleRefused."""
        if not self.tainted or not self.chosen or (connector, operation) in self._allowed:
            return
        self.refused += 1
        name = named(connector, operation)
        work = self._work
        log.warning(
            "model.irreversible_refused",
            execution=str(work.execution), handler=work.handler, tenant=work.tenant, act=name, read=self.tainted,
        )  # fmt: skip
        note(refused="irreversible", act=name, read=self.tainted)
        to = f" to {target[:MOST_NAME]}" if target else ""
        why = f"{name}{to}: a model chose it in an execution that has read {self.tainted}."
        if self.refused <= MOST_TOLD:
            self._tell(f"refused: {why}")
        raise IrreversibleRefused(
            why,
            cure=f'If it may, say so at the handler: allow_irreversible=("{name}",).',
        )

    def check_request(self, method: str, host: str) -> None:
        """A request to a host: those that only read pass. Raises IrreversibleRefused."""
        if method.upper() not in READING:
            operation = method.lower() if method.lower() in CHANGING else CHANGING[0]
            self.check(HTTP, operation, target=host)


def given(work: Work) -> str:
    """What untrusted text an execution is given to begin with; empty for none."""
    if (request := work.request) is not None:
        return f"the request {request.method} {request.path}"[: 2 * MOST_NAME]
    if work.object == NOTICE:  # made by the platform
        return ""
    for place, record in enumerate(work.records):
        if work.object == JOB:
            arguments, job = record.get("arguments"), record.get("job")
            values = list(arguments.values()) if isinstance(arguments, dict) else [arguments]
            reason = job.get("reason") if isinstance(job, dict) else None  # why a job failed, in anybody's words
            if _has_text([*values, reason]):
                return f"the arguments of the job {work.event}"[: 2 * MOST_NAME]
        elif _has_text(record):
            event = work.events[place] if place < len(work.events) else {}
            source = str(event.get("source") or "")[:MOST_NAME]
            by = f" by webhook {source}" if source else ""
            return f"{work.object} {str(record.get('id', ''))[:MOST_NAME]}{by}"
    return ""


def calls_of(choices: Any) -> list[tuple[str, str]]:
    """The calls of tools in the choices of an answer, whole or a piece of a stream, as (id, name)."""
    found: list[tuple[str, str]] = []
    for choice in choices if isinstance(choices, list) else ():
        for said in (choice.get("message"), choice.get("delta")) if isinstance(choice, dict) else ():
            if isinstance(said, dict):
                found += _calls_of(said)
    return found


def _calls_of(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    calls = said.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            function = call.get("function") or call.get("custom")
            name = function.get("name") if isinstance(function, dict) else None
            found.append((str(call.get("id") or ""), str(name or "")))
    if isinstance(function := said.get("function_call"), dict):
        name = str(function.get("name") or "")
        found.append((name, name))
    return found


def calls_in(body: bytes) -> list[tuple[str, str]]:
    """The calls of tools in a whole completion."""
    if b"tool_calls" not in body and b"function_call" not in body and b"\\u" not in body:
        return []
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return calls_of(said.get("choices")) if isinstance(said, dict) else []


def name_of(messages: Sequence[Mapping[str, Any]], identifier: Any) -> str:
    """The tool that was called by this id; empty where nobody knows."""
    for message in reversed(messages):
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict) and call.get("id") == identifier and isinstance(call.get("function"), dict):
                return str(call["function"].get("name") or "")
    return ""


def _fetched(content: Any) -> str:
    """The address of a picture that the provider fetches for the model; empty where all of it is at hand."""
    for part in content if isinstance(content, list) else ():
        image = part.get("image_url") if isinstance(part, dict) else None
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str) and url and url[:5].lower() != "data:":
            return address(url)
    return ""


def _is_bare(content: Any) -> bool:
    parts = content if isinstance(content, list) else [content]
    texts = [each.get("text", each) if isinstance(each, dict) else each for each in parts]
    return all(each is None or (isinstance(each, str) and _BARE.fullmatch(each[:200] if len(each) < 200 else "?"))
               for each in texts)  # fmt: skip


def _has_text(value: Any, depth: int = DEEPEST) -> bool:
    """Whether any text stands in it; an id is one, too."""
    if isinstance(value, str | bytes):
        return bool(value)
    if depth == 0:
        return True
    if isinstance(value, Mapping):
        return any(_has_text(each, depth - 1) for each in (*value.values(), *value))
    if isinstance(value, list | tuple | set | frozenset):
        return any(_has_text(each, depth - 1) for each in value)
    return False
