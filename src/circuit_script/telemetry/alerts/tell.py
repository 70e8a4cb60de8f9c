"""Telling: one message to one channel, through apprise, in a thread of its own.

A thread and not a task, as its plugins block; a daemon, and not of a pool, as a receiver that never answers must hold
up neither the others nor the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

from circuit_script.errors import StartError
from circuit_script.telemetry.alerts.notices import Message
from circuit_script.telemetry.alerts.words import printable

PATIENCE = 15.0  # seconds that a receiver has
LONGEST_TITLE = 240
LONGEST_REASON = 300
AT_ONCE = 3  # attempts at one receiver; who answers a byte at a time would else have a thread of each for hours

_under_way: Counter[str] = Counter()  # attempts by address, of all threads
_turn = threading.Lock()


class CannotTell(Exception):
    """The message was not taken; says why, and never the channel's address: it has its password."""


def must_have_apprise() -> None:
    """Raises StartError without the extra."""
    if find_spec("apprise") is None:
        raise StartError(
            "circuit.toml has [alerts.channels], and apprise is not installed.",
            cure="pip install 'circuit-script[alerts]'",
            page="alerts",
        )


async def tell(url: str, message: Message, *, patience: float = PATIENCE) -> None:
    """Send it. Raises CannotTell when nobody took it in time."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def finish(said: str) -> None:
        if not done.done():
            done.set_result(said)

    def send() -> None:
        try:
            said = _send(url, message, patience)
        except BaseException as error:  # a plugin's, whatever it is: somebody waits for a word
            said = type(error).__name__
        _count(url, -1)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            loop.call_soon_threadsafe(partial(finish, said))

    if not _count(url, 1):
        raise CannotTell("it has not yet taken what it was told before")
    try:
        threading.Thread(target=send, name="alerts", daemon=True).start()
    except RuntimeError:  # this process has as many as it may have
        _count(url, -1)
        raise
    try:
        said = await asyncio.wait_for(done, patience)
    except TimeoutError:
        raise CannotTell(f"it did not answer within {patience:g} s") from None
    if said:
        raise CannotTell(said)


def _count(url: str, more: int) -> bool:
    """Count attempts; False, and nothing is counted, where there are too many."""
    with _turn:
        if more > 0 and _under_way[url] >= AT_ONCE:
            return False
        _under_way[url] += more
        if not _under_way[url]:
            del _under_way[url]
        return True


def _send(url: str, message: Message, patience: float) -> str:
    """Empty when it was taken, else why not. Blocks."""
    import apprise  # large, and an extra

    service = apprise.Apprise.instantiate(url, asset=_asset(apprise))
    if service is None:
        return "apprise knows no such address, or something is missing in it"
    service.socket_connect_timeout = service.socket_read_timeout = patience / 3
    kinds = {
        "critical": apprise.NotifyType.FAILURE,
        "warning": apprise.NotifyType.WARNING,
        "notice": apprise.NotifyType.INFO,
        None: apprise.NotifyType.SUCCESS,
    }
    channel = apprise.Apprise(asset=_asset(apprise))
    channel.add(service)
    with _heard() as words:
        taken = channel.notify(
            body=message.body,
            title=message.title[:LONGEST_TITLE],
            notify_type=kinds[message.severity],
            body_format=apprise.NotifyFormat.TEXT,
        )
    return "" if taken else printable(" ".join(words))[:LONGEST_REASON] or "it did not take the message"


def _asset(apprise: Any) -> Any:
    """In this thread alone: its own threads would hold up the end of the process."""
    endless = {"service_timeout": 0} if hasattr(apprise.AppriseAsset, "_service_timeout") else {}
    return apprise.AppriseAsset(
        app_id="Circuit Script", app_desc="Circuit Script", app_url="", async_mode=False, secure_logging=True, **endless
    )


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """What its plugins say of a failure, in this thread; they leave passwords out of it."""
    words: list[str] = []
    here = threading.get_ident()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if threading.get_ident() == here:
                words.append(record.getMessage())

    ear, logger = Ear(logging.WARNING), logging.getLogger("apprise")
    logger.addHandler(ear)
    try:
        yield words
    finally:
        logger.removeHandler(ear)
