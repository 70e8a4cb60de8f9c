"""What a provider says of its bill, and what may be on it when it refuses."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from circuit_script.llm import Provider
from circuit_script.llm.provider import Refusal, Tokens, tokens_of
from tests.loopback import NOBODY
from tests.openai_provider import Do, providing

KEY = "sk-proj-" + "A" * 150


def usage(read: int, made: int, **more: Any) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": read, "completion_tokens": made, **more}}


@pytest.mark.parametrize(
    ("said", "made"),
    [
        (usage(32, 9), 9),
        (usage(32, 9, total_tokens=41), 9),
        (usage(32, 9, total_tokens=10), 9),
        (usage(32, 9, total_tokens=2041), 2009),
        (usage(32, 9, completion_tokens_details={"reasoning_tokens": 2000}), 2009),
        (usage(32, 2009, total_tokens=2041, completion_tokens_details={"reasoning_tokens": 2000}), 2009),
        (usage(32, 0, total_tokens=232), 200),
    ],
)
def test_what_a_model_thinks_is_output_wherever_it_is_counted(said: dict[str, Any], made: int) -> None:
    assert tokens_of(said, spoke=True) == Tokens(32, made)


@pytest.mark.parametrize("said", [{}, {"usage": None}, usage(0, 0, total_tokens=0), usage(0, 5), usage(10, 0)])
def test_counts_that_cannot_be_say_nothing(said: dict[str, Any]) -> None:
    assert tokens_of(said, spoke=True) is None


def test_an_answer_that_says_nothing_has_no_tokens() -> None:
    assert tokens_of(usage(10, 0), spoke=False) == Tokens(10, 0)


async def refused(do: Do) -> Refusal:
    async with providing(lambda asked: do) as provider, httpx.AsyncClient(verify=NOBODY) as client:
        address = Provider("far", provider.url, ("*",), client, key=KEY)
        with pytest.raises(Refusal) as refusal:
            await address.complete(b'{"model":"m","max_tokens":1,"messages":[]}', 5.0)
        return refusal.value


@pytest.mark.parametrize(
    ("status", "code", "billed"),
    [
        (400, None, False),
        (400, "content_filter", True),
        (401, None, False),
        (408, None, True),
        (409, None, False),
        (429, None, False),
        (499, None, True),
        (500, None, False),
        (502, None, True),
        (503, None, False),
    ],
)
async def test_what_may_be_billed_is_not_tried_again(status: int, code: str | None, billed: bool) -> None:
    found = await refused(Do(status=status, error={"message": "no", "code": code}))
    assert found.billed == billed
    assert not (found.billed and status < 500 and found.passing)


@pytest.mark.parametrize("before", [0, 180, 290])
async def test_no_piece_of_a_key_is_told(before: int) -> None:
    found = await refused(Do(status=401, error={"message": "x" * before + KEY}))
    assert "A" not in found.reason
    assert "sk-" not in found.reason
