"""What an author declares as a job: what it makes of it, and what is refused with file, line and cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from circuit_script.errors import AppError, RequestRefused
from circuit_script.execution.authoring import handlers, jobs
from circuit_script.execution.authoring.handlers import Registry, trigger
from circuit_script.execution.authoring.jobs import asking, enqueue, queueable, scheduled
from circuit_script.execution.outcome import HandlerSpec, JobSpec
from circuit_script.execution.timing import Schedule
from circuit_script.governor import Limits


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    own = Registry()
    monkeypatch.setattr(handlers, "registry", own)
    monkeypatch.setattr(jobs, "registry", own)
    return own


def spec_of(registry: Registry, name: str) -> HandlerSpec:
    return next(each for each in registry.specs() if each.name == name)


def test_a_queueable_is_a_handler_of_its_own_event(registry: Registry) -> None:
    def clean_up(context: Any, **more: Any) -> None: ...

    @queueable(limits={"wall_time": 5}, finalizer=clean_up, concurrency=4)
    async def send_report(context: Any, contact_id: str, days: int = 7) -> None: ...

    spec = spec_of(registry, "send_report")
    assert (spec.routes, spec.batch_size, spec.concurrency) == ((("Job", "send_report"),), 1, 4)
    assert spec.limits == Limits().lowered(wall_time=5)
    assert spec.job == JobSpec(
        "queueable", ("contact_id", "days"), ("contact_id",), False, "clean_up", texts=("contact_id",)
    )
    assert spec_of(registry, "clean_up").job == JobSpec("finalizer", anything=True)
    registry.check()


def test_a_schedule_travels_in_the_spec(registry: Registry) -> None:
    @scheduled("0 7 * * MON-FRI", timezone="Europe/Berlin", jitter="1m", catch_up="all")
    def nightly(context: Any) -> None: ...

    @scheduled(every="5m")
    def often(context: Any, days: int = 1) -> None: ...

    assert registry.jobs()["nightly"].schedule == Schedule("0 7 * * MON-FRI", None, "Europe/Berlin", 60.0, "all")
    assert registry.jobs()["often"].schedule == Schedule(every=300.0)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("all", None), ("acme", ("acme",)), (["globex", "acme", "acme"], ("acme", "globex")), (("all",), ("all",))],
)
def test_a_schedule_says_for_whom_it_fires_and_the_manifest_keeps_it(registry: Registry, said: Any, meant: Any) -> None:
    @scheduled(every="5m", tenants=said)
    def often(context: Any) -> None: ...

    spec = registry.jobs()["often"]
    assert spec.schedule == Schedule(every=300.0, tenants=meant)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(asdict(spec))), JobSpec) == spec


def test_a_job_is_called_with_its_arguments(registry: Registry) -> None:
    calls: list[tuple[Any, ...]] = []

    @queueable()
    def report(context: Any, contact: str, days: int = 7) -> None:
        calls.append((context, contact, days))

    context = SimpleNamespace(arguments={"contact": "c0"})
    registry.callable("report")(context)
    assert calls == [(context, "c0", 7)]


def job(context: Any, a: int) -> None: ...


def test_a_wrong_use_is_refused_with_file_and_line(registry: Registry) -> None:
    with pytest.raises(AppError, match=r"test_declared\.py:\d+: @queueable: it stands without its arguments"):
        queueable(job)  # type: ignore[call-overload,unused-ignore]
    with pytest.raises(AppError, match="'limit'"):
        queueable(limit=3)  # type: ignore[call-arg]
    with pytest.raises(AppError, match=r"test_declared\.py:\d+: @queueable stands on a lambda"):
        queueable()(lambda context: None)


def no_context() -> None: ...
def unnamed(context: Any, *rest: Any) -> None: ...
def reserved(context: Any, delay: int) -> None: ...
def yields(context: Any) -> Any:
    yield


def fine(context: Any) -> None: ...  # fmt: skip


@pytest.mark.parametrize(
    ("declare", "wrong"),
    [
        (lambda: queueable()(no_context), "its first argument must be the context"),
        (lambda: queueable()(unnamed), "'rest' has no name to call it by"),
        (lambda: queueable()(reserved), "'delay', which enqueue takes for itself"),
        (lambda: queueable()(yields), "it has a `yield`"),
        (lambda: queueable(finalizer="clean")(fine), "its finalizer is 'clean', which is no function"),
        (lambda: queueable(finalizer=no_context)(fine), "its first argument must be the context"),
        (lambda: queueable(finalizer=fine)(fine), "it is its own finalizer"),
        (lambda: scheduled("0 25 * * *")(fine), "wrong at column 3: '25' is no hour"),
        (lambda: scheduled("0 7 * * *", timezone="Europe/Berln")(fine), "Did you mean 'Europe/Berlin'"),
        (lambda: scheduled()(fine), "needs a cron expression or every="),
        (lambda: scheduled("0 7 * * *", every="5m")(fine), "and not both"),
        (lambda: scheduled(every="0.1s")(fine), "every is '0.1s'"),
        (lambda: scheduled(every="often")(fine), "every is 'often'"),
        (lambda: scheduled(every="5m", catch_up="some")(fine), "catch_up is 'some'"),
        (lambda: scheduled(every="5m", jitter="2d")(fine), "jitter is '2d'"),
        (lambda: scheduled(every="5m", tenants=[])(fine), "tenants is []"),
        (lambda: scheduled(every="5m", tenants=["ada", ""])(fine), "tenants is ['ada', '']"),
        (lambda: scheduled(every="5m", tenants=["a\0"])(fine), "tenants is ['a\\x00']"),
        (lambda: scheduled(every="5m", tenants=None)(fine), "tenants is None"),
        (lambda: scheduled(every="5m")(job), "'a' has no default"),
        (lambda: (scheduled(every="5m")(fine), queueable()(fine)), "or it has two decorators"),
        (lambda: (trigger("Contact", "afterInsert")(fine), queueable()(fine)), "or it has two decorators"),
        (lambda: (queueable()(fine), trigger("Contact", "afterInsert")(fine)), "an endpoint or a job"),
    ],
)
def test_what_cannot_be_a_job_is_refused_at_load(registry: Registry, declare: Callable[[], Any], wrong: str) -> None:
    with pytest.raises(AppError, match=r"test_declared\.py:\d+: ") as refused:
        declare()
    assert wrong in str(refused.value)
    assert refused.value.cure


@pytest.fixture
def report(registry: Registry) -> Callable[..., Any]:
    @queueable()
    def send_report(context: Any, contact_id: str, options: Any = None) -> None: ...

    return send_report


def test_what_is_asked_is_known_by_function_or_name(report: Callable[..., Any]) -> None:
    asked = asking(report, None, "k", {"contact_id": "4711"})
    assert asked == {"job": "send_report", "arguments": {"contact_id": "4711"}, "due": None, "unique": "k"}
    assert asking("send_report", "5m", None, {"contact_id": "4711"})["due"] > 0


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({}, "needs the argument 'contact_id'"),
        ({"contact_id": 1, "contcat": 1}, "takes no argument 'contcat'"),
        ({"contact_id": {1, 2}}, "contact_id is a set"),
        ({"contact_id": 1, "options": {"at": [object()]}}, r"options['at'][0] is a object"),
        ({"contact_id": float("nan")}, "contact_id is nan"),
        ({"contact_id": 2**65}, "more than 64 bits"),
        ({"contact_id": {1: 2}}, "has the key 1, which is no text"),
        ({"contact_id": 1, "options": "x" * 300_000}, "the largest is 'options' with 300,009"),
    ],
)
def test_arguments_are_checked_by_name(report: Callable[..., Any], arguments: dict[str, Any], wrong: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        asking(report, None, None, arguments)
    assert wrong in str(refused.value)
    assert refused.value.page == "job-refused"


def test_a_list_that_holds_itself_is_refused(report: Callable[..., Any]) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RequestRefused, match="nested too deep"):
        asking(report, None, None, {"contact_id": endless})


@pytest.mark.parametrize(
    ("named", "wrong"),
    [({"delay": "soon"}, "delay is 'soon'"), ({"unique": ""}, "unique is ''"), ({"unique": 5}, "unique is 5")],
)
async def test_delay_and_key_are_checked(report: Callable[..., Any], named: dict[str, Any], wrong: str) -> None:
    with pytest.raises(RequestRefused, match=wrong):
        await enqueue(report, contact_id="1", **named)


async def test_an_unknown_job_is_refused_with_the_nearest_name(report: Callable[..., Any]) -> None:
    with pytest.raises(RequestRefused, match="Did you mean 'send_report'"):
        await enqueue("send_reprot", contact_id="1")
    with pytest.raises(RequestRefused, match="there is no job"):
        await enqueue(no_context)
    with pytest.raises(RequestRefused, match="is no job"):
        await enqueue(5)  # type: ignore[arg-type]
