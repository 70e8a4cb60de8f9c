"""Names → addresses, in threads of its own: a name that is slow holds up only who asked for it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakValueDictionary

from circuit_script.execution.broker.callouts.addresses import parsed

THREADS = 32  # look-ups at a time
OF_TENANT = 4  # of them for one tenant
KEPT = 2.0  # seconds for which an answer is used again; what was checked is connected to all the same
MAX_KEPT = 1000  # names

Ask = Callable[[str, int], Sequence[str]]


@dataclass(slots=True)
class Wait:
    """What a callout waits for. ``ours`` is set while that is the worker's: a name's addresses, or room for one more
    connection. Time that passes so says nothing of the host."""

    ours: str = ""


waiting: ContextVar[Wait | None] = ContextVar("waiting", default=None)


@contextmanager
def waits_for(what: str) -> Iterator[None]:
    """The block waits for the worker itself; who is cancelled in it is told so by `Wait.ours`."""
    if (wait := waiting.get()) is None:
        yield
        return
    wait.ours = what
    yield
    wait.ours = ""


def ask_system(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, in the system's order. Blocks. Raises OSError.

    It also reads addresses in the forms of old: 2130706433, 0x7f.1, 017700000001.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class Resolver:
    """Looks names up. Each tenant has OF_TENANT threads at most, and a name is asked for once at a time."""

    def __init__(
        self, ask: Ask = ask_system, *, threads: int = THREADS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._threads = asyncio.Semaphore(threads)
        self._rooms: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._running: dict[str, asyncio.Future[Sequence[str]]] = {}
        self._kept: OrderedDict[str, tuple[float, Sequence[str]]] = OrderedDict()

    async def look_up(self, host: str, port: int, tenant: str = "") -> Sequence[str]:
        """The addresses of a host. Raises OSError, UnicodeError."""
        with suppress(ValueError):
            parsed(host)
            return [host]
        if (kept := self._kept.get(host)) is not None and kept[0] > self._clock():
            return kept[1]
        with waits_for(f"the addresses of {host}"):
            running = self._running.get(host)
            if running is None:
                running = await self._begun(host, port, tenant)
            await asyncio.wait([running])  # who is cancelled leaves it to the others
        return running.result()

    async def _begun(self, host: str, port: int, tenant: str) -> asyncio.Future[Sequence[str]]:
        """A look-up under way, begun here unless somebody else did while a thread was waited for."""
        room = self._rooms.setdefault(tenant, asyncio.Semaphore(OF_TENANT))
        await room.acquire()
        try:
            await self._threads.acquire()
        except BaseException:
            room.release()
            raise
        if (running := self._running.get(host)) is not None:
            self._threads.release()
            room.release()
            return running
        loop = asyncio.get_running_loop()
        running = self._running[host] = loop.create_future()

        def ended(found: Sequence[str] | None, error: BaseException | None) -> None:
            self._threads.release()
            room.release()
            del self._running[host]
            if found is not None:
                self._keep(host, found)
                running.set_result(found)
            else:
                running.set_exception(error or OSError(f"{host} has no address"))
                running.exception()  # heard, even when all who waited have gone

        def asking() -> None:
            found, failed = None, None
            try:
                found = self._ask(host, port)
            except Exception as error:
                failed = error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended, found, failed)

        # No executor: the process would wait for its threads when it ends.
        try:
            threading.Thread(target=asking, name="resolver", daemon=True).start()
        except RuntimeError as error:
            ended(None, OSError(f"{host}: {error}"))
        return running

    def _keep(self, host: str, found: Sequence[str]) -> None:
        self._kept[host] = (self._clock() + KEPT, found)
        self._kept.move_to_end(host)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
