import pytest

from circuit_script.clock import uuid7
from circuit_script.testing import Run
from circuit_script.wiring.trial_result import HttpAnswer, Line, Sent, TrialBatch, TrialResult, Written


def a_run(**changes):
    batch = TrialBatch(
        **{
            "execution": uuid7(),
            "records": ("c1",),
            "status": "succeeded",
            "duration": 0.1,
            "usage": {"callouts": 2},
            "ceilings": {"callouts": 50},
            **changes,
        }
    )
    return Run([TrialResult("score", "Contact", "afterInsert", "default", (batch,))], "Contact.afterInsert")


WRITES = (
    Written("update", "Task", "t1", {"title": "call"}),
    Written("update", "Contact", "c1", {"score": 7, "band": "cold"}),
    Written("update", "Contact", "c2", {"score": 9, "band": "hot"}),
)


def test_an_effect_is_found_by_its_fields():
    assert a_run(writes=WRITES).assert_effect("Contact", id="c2", score=9).id == "c2"


def test_dots_stand_for_any_value_and_a_function_decides():
    run = a_run(writes=WRITES)
    assert run.assert_effect("Contact", band=..., score=lambda value: value > 8).id == "c2"


def test_dots_do_not_stand_for_a_missing_field():
    with pytest.raises(AssertionError, match=r"grade is missing"):
        a_run(writes=WRITES).assert_effect("Contact", grade=...)


def test_a_missing_effect_names_the_nearest_first():
    with pytest.raises(AssertionError) as failed:
        a_run(writes=WRITES).assert_effect("Contact", id="c2", score=8)
    there = str(failed.value).split("\n")[2:]
    assert [line.split()[1] for line in there] == ["Contact", "Contact", "Task"]
    assert "score=9 (!)" in there[0]
    assert "id='c2'," in there[0]


def test_no_effect_at_all_is_told():
    with pytest.raises(AssertionError, match=r"There were none"):
        a_run().assert_effect("Contact")


def test_a_failed_run_tells_reason_traceback_and_log():
    run = a_run(
        status="failed",
        reason="ValueError: no",
        detail="Traceback: line 3",
        errors={"c1": "ValueError: no"},
        log=(Line("info", "so far", {}),),
    )
    with pytest.raises(AssertionError) as failed:
        run.assert_succeeded()
    for words in ("score: failed: ValueError: no", "record c1", "line 3", "so far"):
        assert words in str(failed.value)
    run.assert_failed("no$")


def test_a_run_without_handlers_is_no_success():
    with pytest.raises(AssertionError, match=r"Contact.afterDelete started no handler"):
        Run([], "Contact.afterDelete").assert_succeeded()


def test_a_run_that_succeeded_did_not_fail():
    with pytest.raises(AssertionError, match=r"should have failed"):
        a_run().assert_failed()


def test_a_message_is_found_by_its_target():
    run = a_run(sends=(Sent("webhook", "alerts", {"who": "c1"}),))
    run.assert_sent("alerts", who="c1")
    with pytest.raises(AssertionError, match=r"to alerts: who='c1'"):
        run.assert_sent("pager")


def test_an_effect_that_should_not_be_is_named():
    with pytest.raises(AssertionError, match=r"should not have made update Task"):
        a_run(writes=WRITES).assert_no_effect("Task")
    a_run(writes=WRITES).assert_no_effect("Contact", score=1)


def test_limits_are_numbers_and_a_wrong_name_is_corrected():
    run = a_run()
    assert run.limits.callouts == 2
    assert run.limits.ceiling("callouts") == 50
    with pytest.raises(AttributeError, match=r"did you mean 'callouts'"):
        _ = run.limits.callout


def test_the_results_of_batches_are_one():
    one = a_run(status="succeeded").results[0].batches
    other = a_run(status="failed", reason="x", usage={"callouts": 5}).results[0].batches
    both = TrialResult("score", "Contact", "afterInsert", "default", (*one, *other))
    assert (both.status, both.reason, both.usage) == ("partial", "x", {"callouts": 5})


def test_server_sent_events_are_read():
    body = b'data: {"token": "a"}\n\nevent: done\ndata: {"execution": "e"}\n\n'
    events = HttpAnswer(200, {}, body, streamed=True).events
    assert events == [{"event": "message", "data": {"token": "a"}}, {"event": "done", "data": {"execution": "e"}}]


def test_a_misspelt_object_is_named_and_proves_nothing():
    for check in (a_run().assert_no_effect, a_run().assert_effect):
        with pytest.raises(AssertionError, match=r"no object 'Contcat'\. Did you mean 'Contact'\?"):
            check("Contcat")


def test_an_object_of_the_apps_own_is_known_as_is_one_that_was_written():
    run = a_run(writes=(Written("insert", "Shipment", "s1", {}),))
    run.assert_effect("Shipment")
    Run(a_run().results, "it", ("Shipment",)).assert_no_effect("Shipment")


def test_no_effect_at_all_includes_messages():
    run = a_run(sends=(Sent("webhook", "alerts", {"who": "c1"}),))
    with pytest.raises(AssertionError, match=r"should not have sent to alerts: who='c1'"):
        run.assert_no_effect()
    run.assert_no_effect("Contact")


@pytest.mark.parametrize("status", ["failed", "breached"])
def test_a_handler_that_crashed_does_not_prove_that_it_has_no_effect(status):
    crashed = a_run(status=status, reason="ValueError: no", crashed=True)
    for arguments in ((), ("Contact",)):
        with pytest.raises(AssertionError, match=r"did not run to its end.*\n.*assert_failed.*\n.*ValueError: no"):
            crashed.assert_no_effect(*arguments)


def test_records_that_failed_by_themselves_have_no_effect():
    a_run(status="failed", errors={"c1": "not yet"}, reason="not yet").assert_no_effect("Contact")


def test_no_handler_does_not_prove_that_there_is_no_effect():
    with pytest.raises(AssertionError, match="started no handler"):
        Run([], "Contact.afterDelete").assert_no_effect()
