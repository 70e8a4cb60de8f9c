"""CircuitTest: what a test has in its hands."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from circuit_script.errors import TrialRefused
from circuit_script.testing.clock import Clock
from circuit_script.testing.factories import Factory, Fields
from circuit_script.testing.recipes import Recipe, Stored
from circuit_script.testing.recorded import Place, RecordedModels
from circuit_script.testing.runs import EndpointRun, Run
from circuit_script.testing.session import NOT_MOCKED, TestSession
from circuit_script.wiring.callouts import Callout, Callouts, Mock
from circuit_script.wiring.objects import fault_of
from circuit_script.wiring.trial import Trial, listed
from circuit_script.wiring.trial_faults import KINDS, Fault
from circuit_script.wiring.trial_jobs import TrialJobs, Waiting
from circuit_script.wiring.trial_models import Answer, mock_models
from circuit_script.wiring.trial_result import TrialResult

Records = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class CircuitTest:
    """The platform for one test: real children, limits and broker, on a database that nobody else has.

    Every method waits until it is done, also in an ``async`` test: nothing has to be awaited. What arrives is handled
    before the method returns. Messages are held as the courier would get them, and never leave; a callout that is not
    mocked fails the test.

    ``factory`` makes the records; another seed makes others: ``circuit.factory = Factory(seed=7)``.
    """

    def __init__(self, session: TestSession, trial: Trial, callouts: Callouts, place: Place) -> None:
        self.factory = Factory()
        self._session = session
        self._trial = trial
        self._callouts = callouts
        self._place = place
        self._recorded: list[RecordedModels] = []
        self._stored: list[Stored] = []
        self._jobs = TrialJobs(trial, session.settings.tenant_names)
        self._since_start: list[TrialResult] | None = None
        self._waited: list[Waiting] = []
        self.clock = Clock(self._jobs, self._advance)

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
        return self._run([result], result.handler, self._recipe(records, tenant, old))

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
        self._checked([result], self._recipe((), tenant))
        return run

    # Jobs.

    def run_job(self, job: str, arguments: Mapping[str, Any] | None = None, *, tenant: str = "default") -> Run:
        """Run a job by its name, as if it had been enqueued, and its finalizer. What it enqueues waits."""
        __tracebackhide__ = True
        return self._ran(self._jobs.run(Waiting(job, arguments or {}, tenant)), job)

    def run_jobs(self) -> Run:
        """Run what was enqueued and is due, and what that enqueues. Delayed jobs wait for ``clock.advance``."""
        __tracebackhide__ = True
        return self._ran(self._jobs.run_waiting(), "what was enqueued")

    @property
    def jobs(self) -> list[Waiting]:
        """The jobs that wait: ``name``, ``arguments``, ``tenant``, ``due``."""
        return list(self._jobs.waiting)

    def start_test(self) -> None:
        """From here on count anew, until ``stop_test``: as Apex's Test.startTest()."""
        self._since_start, self._waited = [], self.jobs

    def stop_test(self) -> Run:
        """Run what was enqueued since ``start_test``, delays or not, as Apex's Test.stopTest(). What is given back has
        what happened since then, jobs among it: their effects, and as ``limits`` the most that one execution used."""
        __tracebackhide__ = True
        if self._since_start is None:
            raise TrialRefused("stop_test() came without start_test().", cure="Call circuit.start_test() before it.")
        own = self._jobs.waiting
        self._ran(self._jobs.run_waiting([each for each in own if each not in self._waited], early=True), "stop_test()")
        results, self._since_start = self._since_start, None
        return Run(results, "what ran since start_test()", self._own)

    def _advance(self, duration: float | str | timedelta) -> Run:
        __tracebackhide__ = True
        return self._ran(self._jobs.advance(duration), f"advance({duration!r})")

    def _ran(self, work: Coroutine[Any, Any, list[TrialResult]], what: str) -> Run:
        """Run jobs, which have taken what they enqueue."""
        __tracebackhide__ = True
        results = self._session.loop.wait(work)
        self._checked(results, self._recipe((), "default"), enqueues=False)
        return Run(results, what, self._own)

    # The CRM.

    def seed(self, object: str, records: Records, *, tenant: str = "default") -> list[str]:
        """Put records into the CRM without starting a trigger; their ids."""
        self._check(object)
        ids = self._session.loop.wait(self._trial.seed(object, records, tenant=tenant))
        rows = [{**row, "id": id} for row, id in zip(listed(records), ids, strict=True)]
        self._stored.append(Stored(object, rows, tenant))
        return ids

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

    def mock_model(self, *answers: Answer) -> Mock:
        """Let models give these answers in turn, and the last one from then on; the mock's ``calls`` are what they were
        asked (``calls[0].json()["messages"]``).

        An answer is a text, a message with ``tool_calls``, or a function of the request that gives one of these.
        """
        if not answers:
            raise TrialRefused("mock_model() got no answer.", cure='Give one: circuit.mock_model("Yes.").')
        return mock_models(self._callouts, self._session.settings, answers)

    def recorded_models(self, name: str) -> Mock:
        """Let models give the answers that real ones gave this test when it was recorded.

        ``circuit-script test --record`` asks the real models and keeps what they say in ``recorded/NAME.json`` beside
        the test; without it nobody is asked, and a prompt that has changed fails the test with the difference.
        """
        recorded = next((each for each in self._recorded if each.file.stem == name), None)
        if recorded is None:
            recorded = RecordedModels.opened(self._place, name, self._session.settings)
            self._recorded.append(recorded)
        return recorded.mock(self._callouts)

    @contextlib.contextmanager
    def fail(self, what: str, *, times: int = 1) -> Iterator[Fault]:
        """In this block the next ``times`` of something fail, and what fails is tried again as on the road, at once.

        ``what``: a "callout" whose connection breaks, a "model" that cannot be reached, a "query" that the CRM does not
        answer, a "commit" that the database does not take, a "worker" that is killed between a handler's end and its
        commit. What ``insert`` and its kin give back tells of the last try; ``run.retried`` has the executions before
        it. Endpoints are not tried again. Fails when nothing of the kind happened in the block.
        """
        __tracebackhide__ = True
        fault = self._trial.faults.arm(what, times)
        try:
            yield fault
        finally:
            self._trial.faults.disarm(fault)
        if not fault.happened:
            raise AssertionError(f"Nothing failed: in circuit.fail({what!r}) no {what} was met ({KINDS[what]}).")

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
        recipe = self._recipe(records, tenant, old)
        self._stored.append(Stored(object, recipe.records, tenant))
        return self._run(results, f"{object}.{event}", recipe)

    def _recipe(self, records: Records, tenant: str, old: Records | None = None) -> Recipe:
        """What a run is given now."""
        before = None if old is None else listed(old)
        return Recipe(listed(records), tenant, before, tuple(self._stored), self._callouts.prepared)

    def _run(self, results: Sequence[TrialResult], what: str, recipe: Recipe) -> Run:
        __tracebackhide__ = True
        self._checked(results, recipe)
        return Run(results, what, self._own)

    @property
    def _own(self) -> tuple[str, ...]:
        return self._session.settings.objects

    def _check(self, object: str) -> None:
        """Raises TrialRefused for an object that is not known."""
        if fault := fault_of(object, self._own):
            raise TrialRefused(fault, page="unknown-object")

    def _checked(self, results: Sequence[TrialResult], recipe: Recipe, *, enqueues: bool = True) -> None:
        __tracebackhide__ = True
        if enqueues:
            self._jobs.take(results)
        if self._since_start is not None:
            self._since_start += results
        self._session.note(results, recipe)
        if wrong := next((each.problem for each in self._recorded if each.problem), ""):
            raise AssertionError(wrong)
        if refused := list(dict.fromkeys(self._callouts.refused)):
            self._callouts.refused.clear()
            first = refused[0].partition(" ")
            cure = f'circuit.mock_callout("{first[0]}", "{first[2]}", json=...)'
            if refused[0].startswith("a connection"):
                host = refused[0].removeprefix("a connection to ").rpartition(":")[0]
                cure = f'circuit.allow_host("{host}"), or let the handler use circuit_script.http'
            raise AssertionError(f"Not mocked: {', '.join(refused)}.\nSay what it answers: {cure}")


@contextlib.contextmanager
def circuit_test(session: TestSession, place: Place) -> Iterator[CircuitTest]:
    """A CircuitTest on a fresh database, which is dropped at the end. ``place`` is where recordings are."""
    callouts = Callouts(NOT_MOCKED)
    with session.trial(callouts) as trial:
        yield CircuitTest(session, trial, callouts, place)
