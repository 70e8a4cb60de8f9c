"""Look-ups with a system whose names answer when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from circuit_script.execution.broker.callouts import resolver
from circuit_script.execution.broker.callouts.resolver import OF_TENANT, Resolver, Wait, waiting
from tests.road import happens


class System:
    """Names that begin with "slow" are answered after `go`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()

    def ask(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host.startswith("slow"):
            self.go.wait(30)
        if host.startswith("gone"):
            raise OSError("Name or service not known")
        return ["8.8.8.8"]


@pytest.fixture
async def system() -> AsyncIterator[System]:
    made = System()
    yield made
    made.go.set()


async def test_a_tenants_slow_names_hold_up_nobody_else(system: System) -> None:
    found = Resolver(system.ask)
    slow = [asyncio.create_task(found.look_up(f"slow{n}.example", 80, "a")) for n in range(50)]
    await happens(lambda: len(system.asked) == OF_TENANT, "the tenant has its threads")
    assert await asyncio.wait_for(found.look_up("fast.example", 80, "b"), 5) == ["8.8.8.8"]
    assert len(system.asked) == OF_TENANT + 1, "no tenant has more threads than its share"
    system.go.set()
    assert await asyncio.gather(*slow) == [["8.8.8.8"]] * 50


async def test_a_name_is_asked_for_once_at_a_time_and_for_a_moment_after(system: System) -> None:
    now = [0.0]
    found = Resolver(system.ask, clock=lambda: now[0])
    waits = [asyncio.create_task(found.look_up("slow.example", 80, tenant)) for tenant in "abca"]
    await happens(lambda: system.asked == ["slow.example"], "the name is asked for")
    waits[0].cancel()  # who asked first leaves it to the others
    system.go.set()
    assert await asyncio.gather(*waits[1:]) == [["8.8.8.8"]] * 3
    assert await found.look_up("slow.example", 443) == ["8.8.8.8"]
    assert system.asked == ["slow.example"]
    now[0] += resolver.KEPT
    await found.look_up("slow.example", 443)
    assert len(system.asked) == 2


async def test_what_is_not_found_is_asked_for_again_and_gives_its_thread_back(system: System) -> None:
    found = Resolver(system.ask, threads=1)
    for _ in range(OF_TENANT + 1):
        with pytest.raises(OSError, match="not known"):
            await asyncio.wait_for(found.look_up("gone.example", 80, "a"), 5)
    assert await asyncio.wait_for(found.look_up("fast.example", 80, "a"), 5) == ["8.8.8.8"]
    assert len(system.asked) == OF_TENANT + 2


async def test_an_address_is_its_own_and_no_name_is_kept_beyond_the_bound(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "MAX_KEPT", 1)
    found = Resolver(system.ask)
    assert [await found.look_up(each, 80) for each in ("::1", "1.2.3.4")] == [["::1"], ["1.2.3.4"]]
    for host in ("a.example", "b.example", "b.example", "a.example"):
        await found.look_up(host, 80)
    assert system.asked == ["a.example", "b.example", "a.example"]


async def test_who_runs_out_of_time_knows_what_was_waited_for(system: System) -> None:
    found, wait = Resolver(system.ask), Wait()
    waiting.set(wait)
    await found.look_up("fast.example", 80)
    assert wait.ours == ""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(found.look_up("slow.example", 80), 0.05)
    assert wait.ours == "the addresses of slow.example"
