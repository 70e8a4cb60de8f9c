"""What a test run showed, and assertions that say what there was when they fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from circuit_script.wiring.objects import fault_of
from circuit_script.wiring.trial_result import HttpAnswer, Line, Sent, TrialBatch, TrialResult, Written

SHOWN = 5
LONGEST = 100


class Used:
    """What the largest execution used of each limit, as attributes: ``run.limits.callouts``. Times in seconds."""

    def __init__(self, results: Sequence[TrialResult]) -> None:
        self._used = _largest([result.usage for result in results])
        self._ceilings = _largest([result.ceilings for result in results])

    def __getattr__(self, name: str) -> float:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._ceilings and name not in self._used:
            near = get_close_matches(name, self._ceilings, n=1)
            cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self._ceilings)}."
            raise AttributeError(f"there is no limit {name!r}: {cure}")
        return self._used.get(name, 0)

    def ceiling(self, name: str) -> float:
        """How much of it there may be."""
        return self._ceilings[name]

    def __repr__(self) -> str:
        return f"Used({', '.join(f'{name}={value:g}' for name, value in self._used.items() if value)})"


class Run:
    """What became of an event: every handler that it started, with effects, log and usage of all of them.

    ``own`` are the names of objects that the app has beside the known ones.
    """

    def __init__(self, results: Sequence[TrialResult], what: str, own: Sequence[str] = ()) -> None:
        self.results = list(results)
        self.what = what
        self._own = own
        self.limits = Used(self.results)

    @property
    def handlers(self) -> list[str]:
        return [result.handler for result in self.results]

    @property
    def succeeded(self) -> bool:
        """Whether handlers ran, and each succeeded for every record."""
        return bool(self.results) and all(result.succeeded for result in self.results)

    @property
    def effects(self) -> list[Written]:
        """Writes to the CRM that were made."""
        return [each for result in self.results for each in result.writes]

    @property
    def sends(self) -> list[Sent]:
        """Messages that the courier would deliver now."""
        return [each for result in self.results for each in result.sends]

    @property
    def discarded(self) -> list[Written | Sent]:
        """What was held and did not leave, because its record or its execution failed."""
        return [each for result in self.results for each in result.discarded]

    @property
    def errors(self) -> dict[str, str]:
        """Reasons by the id of the record."""
        found: dict[str, str] = {}
        for result in self.results:
            for key, reason in result.errors.items():
                found[key] = f"{found[key]}; {reason}" if key in found else reason
        return found

    @property
    def retried(self) -> list[TrialBatch]:
        """Executions that were tried again in ``circuit.fail``, each with its ``reason``, ``log`` and ``discarded``."""
        return [each for result in self.results for each in result.retried]

    @property
    def held(self) -> dict[str, str]:
        """Records that the Judgment Protocol holds for a person, with the reasons: no handler saw them."""
        return {key: reason for result in self.results for key, reason in result.held.items()}

    @property
    def log(self) -> list[Line]:
        return [each for result in self.results for each in result.log]

    @property
    def messages(self) -> list[str]:
        """The messages of the log."""
        return [line.message for line in self.log]

    def assert_succeeded(self) -> None:
        """Fail unless handlers ran and each succeeded for every record."""
        __tracebackhide__ = True
        if not self.results:
            raise AssertionError(f"{self.what} started no handler.")
        if not self.succeeded:
            raise AssertionError(f"{self.what} did not succeed.\n{self._told()}")

    def assert_failed(self, reason: str = "") -> None:
        """Fail unless a handler failed, for a record or as a whole; ``reason`` is searched for as a pattern."""
        __tracebackhide__ = True
        said = [result.reason for result in self.results] + list(self.errors.values())
        if self.results and not self.succeeded and (not reason or any(re.search(reason, each) for each in said)):
            return
        wanted = f" with {reason!r}" if reason else ""
        raise AssertionError(f"{self.what} should have failed{wanted}.\n{self._told()}")

    def assert_effect(self, object: str, /, op: str | None = None, **fields: Any) -> Written:
        """Fail unless there is a write to ``object`` with these fields; returns the first such.

        A field may be given as a value, as ``...`` for any, or as a function that says whether a value will do.
        """
        __tracebackhide__ = True
        near = sorted(self.effects, key=lambda each: _distance(each, object, op, fields))
        if near and _distance(near[0], object, op, fields) == 0:
            return near[0]
        self._check_object(object)
        wanted = f"{op or 'a write to'} {object}" + (f" with {_shown(fields)}" if fields else "")
        shown = [f"  {each.op} {each.object} {_near(each, fields)}" for each in near[:SHOWN]]
        there = "\n".join([*shown, *([f"  … and {len(near) - SHOWN} more"] if len(near) > SHOWN else [])])
        listed = f"There were, nearest first:\n{there}" if near else "There were none."
        raise AssertionError(f"{self.what} did not make {wanted}.\n{listed}{self._if_failed()}")

    def assert_no_effect(self, object: str | None = None, /, **fields: Any) -> None:
        """Fail if there is a write to ``object`` (with these fields), or, without an ``object``, any write or message.

        Fails also where that says nothing: when no handler ran, or one crashed or crossed a limit.
        """
        __tracebackhide__ = True
        self._check_object(object)
        if not self.results:
            raise AssertionError(f"{self.what} started no handler, so that it had no effect says nothing.")
        if any(batch.crashed for result in self.results for batch in result.batches):
            cure = "If it should fail: assert_failed(...); what it held back is in `discarded`."
            raise AssertionError(
                f"{self.what} did not run to its end, so that it had no effect says nothing.\n{cure}\n{self._told()}"
            )
        if object is None and not fields and self.sends:
            sent = self.sends[0]
            raise AssertionError(f"{self.what} should not have sent to {sent.target}: {_shown(sent.payload)}.")
        for each in self.effects:
            if _distance(each, object or each.object, None, fields) == 0:
                raise AssertionError(f"{self.what} should not have made {each.op} {each.object} {_near(each, fields)}.")

    def assert_sent(self, target: str, /, **payload: Any) -> Sent:
        """Fail unless a message to ``target`` with this in its payload would leave; returns the first such."""
        __tracebackhide__ = True
        for each in self.sends:
            if each.target == target and all(_fits(each.payload, *item) for item in payload.items()):
                return each
        there = "\n".join(f"  to {each.target}: {_shown(each.payload)}" for each in self.sends[:SHOWN])
        listed = f"There were:\n{there}" if there else "There were none."
        wanted = f" with {_shown(payload)}" if payload else ""
        raise AssertionError(f"{self.what} sent nothing to {target!r}{wanted}.\n{listed}{self._if_failed()}")

    def _check_object(self, object: str | None) -> None:
        """Fail for a name that is misspelt: nothing is ever written to it."""
        __tracebackhide__ = True
        there = {each.object for each in self.effects}
        if object is not None and object not in there and (fault := fault_of(object, self._own)):
            raise AssertionError(fault)

    def _if_failed(self) -> str:
        return "" if self.succeeded else f"\n{self._told()}"

    def _told(self) -> str:
        lines = []
        for result in self.results:
            lines.append(f"{result.handler}: {result.status}" + (f": {result.reason}" if result.reason else ""))
            lines += [f"  record {key}: {reason}" for key, reason in list(result.errors.items())[:SHOWN]]
            lines += [f"  {line}" for line in result.detail.rstrip().split("\n") if line]
            lines += [f"  log {line.level}: {line.message}" for line in result.log[-SHOWN:]]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self.what}: {', '.join(f'{each.handler} {each.status}' for each in self.results) or 'no handler'}>"


class EndpointRun(Run):
    """What an endpoint answered, and what it did."""

    def __init__(self, result: TrialResult, answer: HttpAnswer, what: str, own: Sequence[str] = ()) -> None:
        super().__init__([result], what, own)
        self.answer = answer

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.answer.headers

    @property
    def body(self) -> bytes:
        return self.answer.body

    @property
    def text(self) -> str:
        return self.answer.text

    @property
    def events(self) -> list[dict[str, Any]]:
        """The server-sent events of a streamed answer."""
        return self.answer.events

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is not."""
        return self.answer.json()

    def assert_status(self, status: int) -> None:
        """Fail unless this is the answer's status."""
        __tracebackhide__ = True
        if self.status != status:
            raise AssertionError(f"{self.what} answered {self.status}, not {status}.\n{self.text}\n{self._told()}")


def _largest(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in each for name in one)
    return {name: max(one.get(name, 0) for one in each) for name in names}


def _value(written: Written, name: str) -> Any:
    return written.id if name == "id" else written.fields.get(name)


def _fits(fields: Mapping[str, Any], name: str, wanted: Any) -> bool:
    if name not in fields:
        return False
    return _equal(fields[name], wanted)


def _equal(value: Any, wanted: Any) -> bool:
    if wanted is ...:
        return True
    if isinstance(wanted, Callable):  # type: ignore[arg-type]  # collections.abc.Callable is a class at run time
        return bool(wanted(value))
    return bool(value == wanted)


def _distance(written: Written, object_: str, op: str | None, fields: Mapping[str, Any]) -> int:
    """How many things differ from what is wanted; another object counts more than any field."""
    has = {"id": written.id, **written.fields}
    wrong = sum(not _fits(has, name, wanted) for name, wanted in fields.items())
    return wrong + (op not in (None, written.op)) + 1000 * (written.object != object_)


def _near(written: Written, fields: Mapping[str, Any]) -> str:
    """The write with the fields that were asked for first, those that differ marked."""
    has = {"id": written.id, **written.fields}
    asked = [
        f"{name}={_cut(has[name])}" + ("" if _equal(has[name], fields[name]) else " (!)") if name in has
        else f"{name} is missing (!)"
        for name in fields
    ]  # fmt: skip
    rest = [f"{name}={_cut(value)}" for name, value in has.items() if name not in fields]
    return ", ".join([*asked, *rest][: max(SHOWN + 3, len(asked))])


def _shown(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={'...' if value is ... else _cut(value)}" for name, value in fields.items())


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
