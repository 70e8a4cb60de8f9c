from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from circuit_script.errors import SecretsUnavailable
from circuit_script.secrets import remembered
from circuit_script.secrets.remembered import AGAIN, AWAY, FRESH, MISSING, Remembered


class Store:
    """Answers when it is let; counts who asks."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.asked: list[str] = []
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.now = 1000.0

    async def ask(self, key: str) -> str | None:
        self.asked.append(key)
        found = self.values.get(key)
        await self.open.wait()
        if self.away:
            raise SecretsUnavailable("it is away.")
        return found

    def remembered(self) -> Remembered[str, str]:
        return Remembered(self.ask, lambda: self.now)


async def test_it_is_asked_for_once_while_it_is_fresh() -> None:
    store = Store(a="1")
    known = store.remembered()
    assert [await known.get("a") for _ in range(3)] == ["1"] * 3
    assert store.asked == ["a"]
    store.now += FRESH
    store.values["a"] = "2"
    assert await known.get("a") == "2"


async def test_many_at_once_are_one_question_for_each_name() -> None:
    store = Store(a="1", b="2")
    store.open.clear()
    known = store.remembered()
    tasks = [asyncio.create_task(known.get(key)) for key in "ab" * 50]
    while len(store.asked) < 2:
        await asyncio.sleep(0)
    tasks[0].cancel()
    store.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == ["2", *["1", "2"] * 49]
    assert sorted(store.asked) == ["a", "b"]


async def test_what_is_missing_is_remembered_briefly() -> None:
    store = Store()
    known = store.remembered()
    assert await known.get("a") is None
    store.values["a"] = "1"
    assert await known.get("a") is None
    store.now += MISSING
    assert await known.get("a") == "1"


async def test_a_store_that_is_away_serves_what_was_read_for_an_hour_and_says_so() -> None:
    store = Store(a="1")
    known = store.remembered()
    await known.get("a")
    store.away = True
    store.now += FRESH
    with capture_logs() as lines:
        assert await known.get("a") == "1"
        assert await known.get("a") == "1"
    assert [line["event"] for line in lines] == ["secret_served_from_memory"]
    assert "'1'" not in repr(lines)
    assert len(store.asked) == 2, "it is not asked again at once"
    store.now += AGAIN
    await known.get("a")
    assert len(store.asked) == 3
    store.now += AWAY
    with pytest.raises(SecretsUnavailable):
        await known.get("a")
    store.away = False
    assert await known.get("a") == "1"


async def test_a_store_that_is_away_knows_nothing_of_what_was_never_read() -> None:
    store = Store()
    known = store.remembered()
    assert await known.get("a") is None
    store.away = True
    store.now += MISSING
    for key in "ab":
        with pytest.raises(SecretsUnavailable):
            await known.get(key)


async def test_an_answer_that_was_under_way_when_it_was_forgotten_is_not_kept() -> None:
    store = Store(a="old")
    store.open.clear()
    known = store.remembered()
    asking = asyncio.create_task(known.get("a"))
    while not store.asked:
        await asyncio.sleep(0)
    store.values["a"] = "new"
    known.forget()
    store.open.set()
    assert await asking == "old"
    assert await known.get("a") == "new"


async def test_forgetting_one_leaves_the_others() -> None:
    store = Store(a="1", b="2")
    known = store.remembered()
    await known.get("a"), await known.get("b")
    known.forget(lambda key: key == "a")
    await known.get("a"), await known.get("b")
    assert store.asked == ["a", "b", "a"]


async def test_it_remembers_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 3)
    store = Store()
    known = store.remembered()
    for key in "abcda":
        await known.get(key)
    assert store.asked == list("abcda")
