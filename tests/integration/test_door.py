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

from circuit_script.endpoints.door import Door, governed
from circuit_script.endpoints.protocol import LENGTH, Answer, Call, Hello, News, Watch, pack, read_answer
from circuit_script.errors import StartError
from circuit_script.execution.outcome import HttpRequest

REQUEST = HttpRequest("GET", "/", "", (), b"")


class Echo:
    """Answers each call with its endpoint's name."""

    async def answer(self, call: Call, caller: Any) -> None:
        caller.send(Answer(200, [], call.endpoint.encode()))


@pytest.fixture
async def knock(app_folder: Path) -> AsyncIterator[Callable[..., Any]]:
    """Opens a door and connections to it."""
    async with AsyncExitStack() as stack:

        async def opened(**options: Any) -> tuple[Path, Door]:
            path = app_folder / ".circuit" / "worker.sock"
            door = Door(path, Echo(), **{"refuse": lambda pid: False, **options})
            await door.start()
            stack.push_async_callback(door.stop, 0.1)
            return path, door

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
    path, door = await knock()
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(pack(Hello()) + pack(Watch()))
    assert await received(reader) == News("", [])
    door.announce("7", [], b"{}")
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
