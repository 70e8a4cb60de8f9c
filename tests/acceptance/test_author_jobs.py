"""Jobs, the clock and what is marked by @test, as an app's tests use them: by pytest itself, on a real app."""

import pytest

from tests.acceptance.author import circuit_script, write_tests

pytestmark = pytest.mark.story

APP = """
from circuit_script import CircuitDB, Retry, enqueue, log, queueable, scheduled, trigger


def ended(context, contact="", again=False):
    log.info("ended", status=context.job.status, contact=contact)


@queueable(finalizer=ended)
async def welcome(context, contact, again=False):
    if contact == "nobody":
        raise ValueError("nobody to welcome")
    await CircuitDB.upsert("Contact", {"id": contact, "welcomed": context.started_at})
    if not again:
        await enqueue(welcome, delay="2d", contact=contact, again=True)


@trigger("Contact", ["afterInsert"])
async def arrive(context):
    for contact in context.new_records:
        await enqueue(welcome, delay="1h", contact=contact.id, unique=contact.id)


@scheduled(every="10m", tenants="all")
async def sweep(context):
    log.info("swept", tenant=context.tenant, at=context.job.scheduled_for.isoformat())
"""
TESTS = """
from datetime import UTC, datetime

import pytest

from circuit_script.errors import TrialRefused
from circuit_script.testing import test


@test
def a_delayed_job_waits_for_its_moment(circuit):
    circuit.clock.set(datetime(2030, 1, 1, tzinfo=UTC))
    circuit.insert("Contact", {"id": "c1"})
    (waiting,) = circuit.jobs
    assert (waiting.name, waiting.arguments) == ("welcome", {"contact": "c1"})
    assert circuit.run_jobs().handlers == []
    assert "welcome" not in circuit.clock.advance("59m").handlers
    run = circuit.clock.advance("2m")
    assert [name for name in run.handlers if name != "sweep"] == ["welcome", "ended"]
    moment = datetime.fromtimestamp(circuit.get("Contact", "c1")["welcomed"], UTC)
    assert abs((moment - datetime(2030, 1, 1, 1, tzinfo=UTC)).total_seconds()) < 60
    (again,) = circuit.jobs
    assert again.arguments["again"] is True
    assert len([name for name in circuit.clock.advance("2d").handlers if name == "welcome"]) == 1


@test
def a_schedule_fires_as_often_as_it_is_due_for_each_tenant(circuit):
    circuit.clock.set(datetime(2030, 1, 1, 0, 5, tzinfo=UTC))
    run = circuit.clock.advance("30m")
    assert [(line.fields["tenant"], line.fields["at"][11:16]) for line in run.log] == [
        (tenant, at) for at in ("00:10", "00:20", "00:30") for tenant in ("acme", "globex")
    ]
    assert circuit.clock.now == datetime(2030, 1, 1, 0, 35, tzinfo=UTC)
    with pytest.raises(TrialRefused, match="advance"):
        circuit.clock.advance("soon")


class Jobs:
    @test
    def stop_test_runs_what_was_enqueued_since_start_test(self, circuit):
        circuit.insert("Contact", {"id": "before"}, tenant="acme")
        circuit.start_test()
        circuit.insert("Contact", [{"id": "c1"}, {"id": "c2"}], tenant="acme")
        run = circuit.stop_test()
        assert run.handlers == ["arrive"] + ["welcome", "ended"] * 4
        run.assert_succeeded()
        run.assert_effect("Contact", id="c2", welcomed=...)
        assert run.limits.jobs == 2
        assert [each.arguments["contact"] for each in circuit.jobs] == ["before"]
        with pytest.raises(TrialRefused, match="start_test"):
            circuit.stop_test()

    @test
    @pytest.mark.parametrize("contact", ["c1", "nobody"])
    def a_job_runs_alone_with_its_finalizer(self, circuit, contact):
        run = circuit.run_job("welcome", {"contact": contact, "again": True})
        status = "dead" if contact == "nobody" else "succeeded"
        assert [line.fields for line in run.log if line.message == "ended"] == [{"status": status, "contact": contact}]
        with pytest.raises(TrialRefused, match="a trigger, not a job"):
            circuit.run_job("arrive")

    def helper(self):
        raise AssertionError("no test")


def test_a_usual_one_is_collected_too():
    pass
"""


@pytest.mark.slow
def test_jobs_run_by_hand_by_the_clock_and_at_stop_test_and_count_as_covered(app):
    (app / "app.py").write_text(APP)
    (app / "circuit.toml").write_text("[tenants]\nacme = {}\nglobex = {}\n")
    write_tests(app, TESTS)
    code, printed, said = circuit_script(app, "test")
    assert "6 passed" in printed, printed + said
    assert code == 0, printed
    assert "✓ nothing refuses a deploy" in printed
