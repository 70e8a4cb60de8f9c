"""The worker's socket: who may use it, and what it makes of nonsense."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from circuit_script.endpoints import client, door
from circuit_script.endpoints.client import Link
from circuit_script.endpoints.door import Door, governed
from circuit_script.endpoints.protocol import (
    LENGTH,
    Answer,
    Call,
    Chunk,
    End,
    Head,
    Hello,
    News,
    Watch,
    pack,
    read_answer,
)
from circuit_script.errors import StartError
from circuit_script.execution.outcome import HttpRequest
from tests.road import happens

REQUEST = HttpRequest("GET", "/", "", (), b"")


MB = 1024 * 1024


class Echo:
    """Answers each call with its endpoint's name; ``waits`` never, ``large`` at length, ``streams`` 8 MB."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone: list[str] = []

    async def answer(self, call: Call, caller: Any) -> None:
        self.asked.append(call.endpoint)
        match call.endpoint.partition("-")[0]:
            case "waits":
                await asyncio.Event().wait()
            case "large":
                caller.send(Answer(200, [], b"x" * 16 * MB))
            case "streams":
                caller.on_gone(lambda: self.gone.append(call.endpoint))
                caller.send(Head(200, []))
                for _ in range(8):
                    caller.send(Chunk(b"x" * MB))
                if call.endpoint.endswith("end"):
                    caller.send(End())
                else:
                    await asyncio.Event().wait()
            case _:
                caller.send(Answer(200, [], call.endpoint.encode()))


@pytest.fixture
async def knock(app_folder: Path) -> AsyncIterator[Callable[..., Any]]:
    """Opens a door and connections to it."""
    async with AsyncExitStack() as stack:

        async def opened(answering: Any = None, **options: Any) -> tuple[Path, Door]:
            path = app_folder / ".circuit" / "worker.sock"
            made = Door(path, answering or Echo(), **{"refuse": lambda pid: False, **options})
            await made.start()
            stack.push_async_callback(made.stop, 0.1)
            return path, made

        yield opened


async def received(reader: asyncio.StreamReader) -> Any:
    length = LENGTH.unpack(await reader.readexactly(4))[0]
    return read_answer(await reader.readexactly(length))


async def test_only_its_user_may_open_it(knock: Callable[..., Any]) -> None:
    path, _ = await knock()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_governed_process_is_refused(knock: Callable[..., Any]) -> None:
    asked: list[int] = []

    def refuse(pid: int) -> bool:
        asked.append(pid)
        return True

    path, _ = await knock(refuse=refuse)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(pack(Hello()) + pack(Watch()))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await received(reader)
    writer.close()
    assert asked == [os.getpid()]


async def test_what_descends_from_the_worker_is_governed_and_nobody_else() -> None:
    assert governed(os.getpid())
    assert not governed(os.getppid())
    assert not governed(1)
    child = await asyncio.create_subprocess_exec("sleep", "60")
    assert governed(child.pid)
    child.kill()
    await child.wait()
    assert not governed(child.pid)


async def test_calls_that_come_right_behind_each_other_are_all_answered(knock: Callable[..., Any]) -> None:
    path, _ = await knock()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(pack(Hello()) + b"".join(pack(Call(str(n), "acme", REQUEST)) for n in range(50)))
    assert [(await received(reader)).body for _ in range(50)] == [str(n).encode() for n in range(50)]
    writer.close()


async def test_who_watches_hears_of_each_release(knock: Callable[..., Any]) -> None:
    path, made = await knock()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(pack(Hello()) + pack(Watch()))
    assert await received(reader) == News("", [])
    made.announce("7", [], b"{}")
    assert await received(reader) == News("7", [], b"{}")
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        LENGTH.pack(2**31),
        LENGTH.pack(3) + b"\xc1\xc1\xc1",
        pack(Watch()),
        pack(Hello()) + pack(Hello()),
    ],
)
async def test_nonsense_ends_the_connection_and_nothing_else(knock: Callable[..., Any], sent: bytes) -> None:
    path, _ = await knock()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await received(reader)
    writer.close()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(pack(Hello()) + pack(Call("again", "acme", REQUEST)))
    assert (await received(reader)).body == b"again"
    writer.close()


async def test_another_version_is_told_so(knock: Callable[..., Any]) -> None:
    path, _ = await knock()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(pack(Hello(99)))
    assert (await received(reader)).status == 503
    writer.close()


async def test_a_socket_outside_of_the_app_stands_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StartError, match="alone"):
        await Door(folder / "worker.sock", Echo()).start()


async def ask(path: Path, *messages: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"".join(map(pack, (Hello(), *messages))))
    return reader, writer


async def test_when_all_connections_are_used_the_longest_unused_goes_and_no_watch(
    knock: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 4)
    path, _ = await knock()
    watching = await ask(path, Watch())
    await received(watching[0])
    idle = []
    for name in ("first", "second"):
        idle.append(await ask(path, Call(name, "acme", REQUEST)))
        await received(idle[-1][0])
    busy = await ask(path, Call("waits", "acme", REQUEST))
    late = await ask(path, Call("late", "acme", REQUEST))
    assert (await received(late[0])).body == b"late"
    told = await received(idle[0][0])
    assert (told.status, b"nothing was executed" in told.body) == (503, True), "a call that crosses is answered"
    assert await idle[0][0].read() == b""
    idle[1][1].write(pack(Call("again", "acme", REQUEST)))
    assert (await received(idle[1][0])).body == b"again"
    assert not watching[0].at_eof()
    for _, writer in (watching, *idle, busy, late):
        writer.close()


async def test_when_all_connections_are_busy_a_call_is_told_that_nothing_was_executed(
    knock: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 1)
    echo = Echo()
    path, _ = await knock(echo)
    busy = await ask(path, Call("waits", "acme", REQUEST))
    await happens(lambda: echo.asked == ["waits"], "the first one is busy")
    late = await ask(path, Call("late", "acme", REQUEST))
    told = await received(late[0])
    assert (told.status, b"nothing was executed" in told.body, dict(told.headers)["retry-after"]) == (503, True, "1")
    assert await late[0].read() == b""
    assert echo.asked == ["waits"]
    for _, writer in (busy, late):
        writer.close()


async def test_a_connection_too_many_that_asks_nothing_is_closed(
    knock: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 0)
    monkeypatch.setattr(door, "SURPLUS_SECONDS", 0.01)
    path, _ = await knock()
    reader, writer = await ask(path)
    assert (await received(reader)).status == 503
    assert await reader.read() == b""
    writer.close()


async def test_over_the_bound_of_all_who_reads_worst_is_cut_off_and_not_who_is_written_to(
    knock: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_UNREAD_OF_ALL", 20 * MB)
    echo = Echo()
    path, _ = await knock(echo)
    slow = [await ask(path, Call(f"streams-{n}", "acme", REQUEST)) for n in range(2)]
    await happens(lambda: len(echo.asked) == 2, "both are held")
    large = await ask(path, Call("large", "acme", REQUEST))
    assert len((await received(large[0])).body) == 16 * MB, "a whole answer is not counted"
    assert echo.gone == []
    third = await ask(path, Call("streams-3-end", "acme", REQUEST))
    pieces = [await received(third[0]) for _ in range(10)]
    assert pieces[-1] == End()
    assert len(echo.gone) == 1
    assert echo.gone[0] in ("streams-0", "streams-1")
    for _, writer in (*slow, large, third):
        writer.close()


async def test_a_second_worker_in_the_folder_waits_until_the_first_is_gone(knock: Callable[..., Any]) -> None:
    path, first = await knock()
    _, second = await knock()
    _, third = await knock()
    first.announce("1", [])
    third.announce("3", [])
    await second.stop(0.1)
    reader, writer = await ask(path, Watch())
    assert await received(reader) == News("1", []), "it is still there"
    await first.stop(0.1)
    assert await reader.read() == b""
    writer.close()
    await happens(path.exists, "the third has taken its place")
    reader, writer = await ask(path, Watch())
    assert await received(reader) == News("3", [])
    writer.close()


async def test_a_client_closes_what_it_did_not_use_for_a_while(
    knock: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "IDLE", 0.05)
    path, made = await knock()
    made.announce("1", [])
    async with Link(path) as link:
        assert await link.wait(5)
        await asyncio.gather(*(link.call(Call(str(n), "acme", REQUEST)) for n in range(5)))
        await happens(lambda: len(made._connections) == 1, "only the watch is left")
        answer = await link.call(Call("again", "acme", REQUEST))
        assert isinstance(answer, Answer)
        assert answer.body == b"again"


async def test_a_client_whose_unused_connection_was_closed_opens_another(
    knock: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 2)
    path, _ = await knock()
    async with Link(path) as link:
        assert await link.wait(5)
        await link.call(Call("first", "acme", REQUEST))
        other = await ask(path, Call("other", "acme", REQUEST))
        await received(other[0])
        await happens(lambda: link._idle[0].ended, "the client has heard of it")
        answer = await link.call(Call("second", "acme", REQUEST))
        assert isinstance(answer, Answer)
        assert answer.body == b"second"
        other[1].close()
