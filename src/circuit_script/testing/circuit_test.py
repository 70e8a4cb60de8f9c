"""CircuitTest: what a test has in its hands."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from circuit_script.errors import TrialRefused
from circuit_script.testing.factories import Factory, Fields
from circuit_script.testing.runs import EndpointRun, Run
from circuit_script.testing.session import NOT_MOCKED, TestSession
from circuit_script.wiring.callouts import Callout, Callouts, Mock
from circuit_script.wiring.objects import fault_of
from circuit_script.wiring.trial import Trial
from circuit_script.wiring.trial_result import TrialResult

Records = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class CircuitTest:
    """The platform for one test: real children, limits and broker, on a database that nobody else has.

    Every method waits until it is done, also in an ``async`` test: nothing has to be awaited. What arrives is handled
    before the method returns. Messages are held as the courier would get them, and never leave; a callout that is not
    mocked fails the test.

    ``factory`` makes the records; another seed makes others: ``circuit.factory = Factory(seed=7)``.
    """

    def __init__(self, session: TestSession, trial: Trial, callouts: Callouts) -> None:
        self.factory = Factory()
        self._session = session
        self._trial = trial
        self._callouts = callouts

    # Records. They are made, not stored.

    def create_test_contact(self, **fields: Any) -> Fields:
        """A contact; ``fields`` come in the place of what is made up."""
        return self.factory.contact(**fields)

    def create_test_contacts(self, count: int, **fields: Any) -> list[Fields]:
        """So many different contacts."""
        return [self.factory.contact(**fields) for _ in range(count)]

    def create_test_opportunity(self, contact: Fields | None = None, **fields: Any) -> Fields:
        """A deal of this contact, or of a new one."""
        return self.factory.opportunity(contact, **fields)

    def create_test_message(self, contact: Fields | None = None, **fields: Any) -> Fields:
        """An in-bound message of this contact, or of a new one."""
        return self.factory.message(contact, **fields)

    def create_test_appointment(self, contact: Fields | None = None, **fields: Any) -> Fields:
        """A visit that this contact, or a new one, has booked."""
        return self.factory.appointment(contact, **fields)

    # Events.

    def insert(self, object: str, records: Records, *, tenant: str = "default") -> Run:
        """Records arrive as new: every trigger of their ``afterInsert`` runs, and what it writes is stored.

        As on the road, what no trigger is called for changes nothing: ``seed`` stores records without one.
        """
        __tracebackhide__ = True
        return self._deliver(object, "afterInsert", records, tenant)

    def update(self, object: str, records: Records, *, old: Records | None = None, tenant: str = "default") -> Run:
        """Records arrive as changed: give ``id`` and what changed. The before-image is what is stored, or ``old``."""
        __tracebackhide__ = True
        return self._deliver(object, "afterUpdate", records, tenant, old)

    def delete(self, object: str, records: Records, *, tenant: str = "default") -> Run:
        """Records are gone: every trigger of their ``afterDelete`` runs, and the CRM has them no more.

        Without such a trigger nothing changes, as on the road: what is not handled never reaches the CRM.
        """
        __tracebackhide__ = True
        return self._deliver(object, "afterDelete", records, tenant)

    def undelete(self, object: str, records: Records, *, tenant: str = "default") -> Run:
        """Deleted records are back: every trigger of their ``afterUndelete`` runs. Without one nothing changes."""
        __tracebackhide__ = True
        return self._deliver(object, "afterUndelete", records, tenant)

    def invoke(
        self,
        handler: str,
        records: Records,
        *,
        object: str | None = None,
        event: str | None = None,
        old: Records | None = None,
        tenant: str = "default",
    ) -> Run:
        """Run this handler alone. ``object`` and ``event`` may be left out where it has one of them."""
        __tracebackhide__ = True
        result = self._session.loop.wait(
            self._trial.run(handler, records, object=object, event=event, tenant=tenant, old=old)
        )
        return self._run([result], result.handler)

    def call(
        self,
        endpoint: str,
        *,
        method: str | None = None,
        json: Any = None,
        body: bytes | str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        tenant: str = "default",
    ) -> EndpointRun:
        """Call an endpoint by its name or path (``chat``, ``leads/7``): POST with a body, else GET."""
        __tracebackhide__ = True
        sent = dict(headers or {})
        if json is not None:
            body = msgspec.json.encode(json)
            sent.setdefault("content-type", "application/json")
        raw = body.encode() if isinstance(body, str) else body or b""
        result = self._session.loop.wait(
            self._trial.call(endpoint, method=method, body=raw, query=query, headers=sent, tenant=tenant)
        )
        assert result.answer is not None
        run = EndpointRun(result, result.answer, f"{result.event}", self._own)
        self._checked([result])
        return run

    # The CRM.

    def seed(self, object: str, records: Records, *, tenant: str = "default") -> list[str]:
        """Put records into the CRM without starting a trigger; their ids."""
        self._check(object)
        return self._session.loop.wait(self._trial.seed(object, records, tenant=tenant))

    def query(
        self,
        object: str,
        where: Mapping[str, Any] | None = None,
        *,
        order_by: str | None = None,
        limit: int = 1000,
        tenant: str = "default",
    ) -> list[Fields]:
        """What the CRM has now, as ``CircuitDB.query`` finds it. An object that is not known is refused, unless there
        are records of it."""
        wait, query = self._session.loop.wait, self._trial.query
        found = wait(query(object, where, order_by=order_by, limit=limit, tenant=tenant))
        if not found and not wait(query(object, limit=1, tenant=tenant)):
            self._check(object)
        return found

    def get(self, object: str, id: str, *, tenant: str = "default") -> Fields | None:
        """The record with this id, or None."""
        return next(iter(self.query(object, {"id": id}, tenant=tenant)), None)

    # The outside.

    def mock_callout(
        self,
        method: str,
        url: str | re.Pattern[str],
        *,
        json: Any = None,
        body: bytes | str = b"",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> Mock:
        """Answer callouts of ``method`` ("*" is any) to ``url``; the mock's ``calls`` are the requests that came.

        In ``url``, ``*`` stands for anything; without a ``?`` in it the query does not count. ``json`` may be a
        function of the request. After ``times`` answers the mock is used up; of several that fit the latest answers.
        """
        return self._callouts.mock(method, url, json=json, body=body, status=status, headers=headers, times=times)

    def allow_host(self, host: str) -> None:
        """Let libraries that open their own connections (``requests``, drivers) reach this host."""
        self._callouts.allow_host(host)

    @property
    def callouts(self) -> list[Callout]:
        """Every callout through ``http`` so far, also those that were refused."""
        return list(self._callouts.made)

    def _deliver(self, object: str, event: str, records: Records, tenant: str, old: Records | None = None) -> Run:
        __tracebackhide__ = True
        self._check(object)
        results = self._session.loop.wait(self._trial.deliver(object, event, records, tenant=tenant, old=old))
        return self._run(results, f"{object}.{event}")

    def _run(self, results: Sequence[TrialResult], what: str) -> Run:
        __tracebackhide__ = True
        self._checked(results)
        return Run(results, what, self._own)

    @property
    def _own(self) -> tuple[str, ...]:
        return self._session.settings.objects

    def _check(self, object: str) -> None:
        """Raises TrialRefused for an object that is not known."""
        if fault := fault_of(object, self._own):
            raise TrialRefused(fault, page="unknown-object")

    def _checked(self, results: Sequence[TrialResult]) -> None:
        __tracebackhide__ = True
        self._session.note(results)
        if refused := list(dict.fromkeys(self._callouts.refused)):
            self._callouts.refused.clear()
            first = refused[0].partition(" ")
            cure = f'circuit.mock_callout("{first[0]}", "{first[2]}", json=...)'
            if refused[0].startswith("a connection"):
                host = refused[0].removeprefix("a connection to ").rpartition(":")[0]
                cure = f'circuit.allow_host("{host}"), or let the handler use circuit_script.http'
            raise AssertionError(f"Not mocked: {', '.join(refused)}.\nSay what it answers: {cure}")


@contextlib.contextmanager
def circuit_test(session: TestSession) -> Iterator[CircuitTest]:
    """A CircuitTest on a fresh database, which is dropped at the end."""
    callouts = Callouts(NOT_MOCKED)
    with session.trial(callouts) as trial:
        yield CircuitTest(session, trial, callouts)
