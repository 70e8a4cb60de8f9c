"""An endpoint in a real child: what it is given, what it answers, and what becomes of its effects."""

from __future__ import annotations

import pytest

from circuit_script.execution.outcome import Failed, Succeeded
from tests.integration.execution.calls import APP, Door
from tests.integration.execution.conftest import PoolOf


@pytest.fixture
async def door(pool_of: PoolOf) -> Door:
    return Door(await pool_of(APP, size=1))


async def test_an_endpoint_takes_a_model_and_answers_with_one(door: Door) -> None:
    outcome, caller = await door.call("chat", "POST", body={"message": "Hi"})

    assert isinstance(outcome, Succeeded)
    assert not outcome.discard
    assert caller.status == 200
    assert caller.head is not None
    assert not caller.head.streamed
    assert caller.header["content-type"] == "application/json"
    assert caller.json == {"reply": "You said Hi."}
    assert [verb for verb, _ in caller.asked] == ["dml"]
    assert caller.messages == ["asked"]


async def test_a_request_that_does_not_validate_names_each_fault_and_discards(door: Door) -> None:
    outcome, caller = await door.call("chat", "POST", body={"message": ""})

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert caller.status == 422
    assert caller.header["content-type"] == "application/problem+json"
    assert caller.json["title"] == "Unprocessable Content" or caller.json["title"] == "Unprocessable Entity"
    assert caller.json["detail"] == "body.message: String should have at least 1 character."
    assert caller.json["errors"] == [
        {"loc": ["body", "message"], "msg": "String should have at least 1 character", "type": "string_too_short"}
    ]
    assert caller.asked == []


async def test_a_body_that_is_not_json_is_refused(door: Door) -> None:
    outcome, caller = await door.call("chat", "POST", body=b"{nonsense")

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert caller.status == 422


async def test_a_plain_function_runs_in_the_main_thread_with_path_query_header_and_context(door: Door) -> None:
    headers = [("x-trace", "t1"), ("host", "x")]
    outcome, caller = await door.call("lead", path="/api/leads/42", query="fields=a&fields=b", headers=headers)

    assert isinstance(outcome, Succeeded), outcome
    assert caller.json == {"id": 42, "name": "Ada", "fields": ["a", "b"], "trace": "t1", "tenant": "acme"}


async def test_a_path_parameter_may_span_slashes_and_percent_signs(door: Door) -> None:
    _, caller = await door.call("file", path="/api/files/a/b%20c%C3%A9.txt")

    assert caller.json == {"path": "a/b cé.txt"}


async def test_a_problem_is_told_and_discards_what_was_written(door: Door) -> None:
    outcome, caller = await door.call("missing")

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert caller.status == 404
    assert caller.header["content-type"] == "application/problem+json"
    assert caller.header["x-why"] == "gone"
    assert caller.json == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "no such lead",
        "lead": 4711,
    }


async def test_fastapis_own_exception_works_alike(door: Door) -> None:
    outcome, caller = await door.call("forbidden")

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert (caller.status, caller.json["detail"]) == (403, "not yours")


async def test_any_answer_of_400_or_more_discards(door: Door) -> None:
    outcome, caller = await door.call("teapot")

    assert isinstance(outcome, Succeeded)
    assert outcome.discard
    assert (caller.status, caller.body) == (418, b"short and stout")


async def test_an_exception_fails_the_execution_and_says_nothing_to_the_caller(door: Door) -> None:
    outcome, caller = await door.call("raises")

    assert isinstance(outcome, Failed)
    assert outcome.reason == "ValueError: the password is hunter2"
    assert "in raises" in outcome.detail
    assert "site-packages" not in outcome.detail
    assert caller.head is None
    assert caller.chunks == []


async def test_a_retry_is_no_answer(door: Door) -> None:
    outcome, caller = await door.call("retries")

    assert isinstance(outcome, Failed)
    assert "Retry is for records" in outcome.reason
    assert caller.head is None


async def test_an_answer_that_is_not_the_declared_model_fails(door: Door) -> None:
    outcome, caller = await door.call("wrong_answer")

    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith("ResponseValidationError")
    assert caller.head is None


async def test_methods_of_a_class_are_endpoints_with_one_instance_in_each_child(door: Door) -> None:
    for count in ("1", "2"):
        _, caller = await door.call("Contacts.counted", "POST", "/api/counted", {"message": "x"})
        assert caller.json == {"reply": count}
    _, caller = await door.call("Contacts.static", path="/api/static/me")
    assert caller.json == "me"
