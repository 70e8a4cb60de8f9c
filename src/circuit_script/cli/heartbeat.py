"""The dead man's switch: an address outside hears from this host as long as its roles work, and raises the alarm when
it does not. And who does not answer any more though its process lives is ended, so that it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import urlsplit

import psycopg

from circuit_script.cli.role_process import RoleProcess, say
from circuit_script.config import Settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.pool import open_connection
from circuit_script.errors import CircuitError
from circuit_script.events.hearts import read_hearts
from circuit_script.events.lanes import this_host
from circuit_script.settings_spans import seconds_of

LOOK = 15.0  # seconds between two looks
PATIENCE = 10.0  # seconds for each question
STUCK = 90.0  # seconds without an answer after which a role is ended
NEEDED = ("worker", "gateway")
DASHBOARD = "dashboard"  # without which all goes well: it is ended when it is stuck, and no heartbeat waits for it


@dataclass(slots=True)
class Heart:
    """Looks at the roles and tells outside. ``settings`` may change; ``roles`` gives those that were started."""

    settings: Callable[[], Settings]
    roles: Callable[[], Mapping[str, RoleProcess]]
    look_every: float = LOOK
    stuck_after: float = STUCK
    _ill: dict[int, float] = field(default_factory=dict)  # process → since when it does not answer
    _told_at: float = float("-inf")
    _trouble: str = ""

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            wanted = self.settings().guardian
            every = seconds_of(wanted.heartbeat)
            try:
                trouble = await self._look()
                if not trouble and wanted.heartbeat_url and time.monotonic() - self._told_at >= every:
                    trouble = await self._beat(wanted.heartbeat_url)
            except Exception as error:  # whatever it is: a look that fails must not be the last one
                trouble = f"the look at the roles failed ({type(error).__name__}: {error})"
            if trouble != self._trouble and wanted.heartbeat_url:
                say(f"no heartbeat goes out: {trouble}" if trouble else "the heartbeat goes out again")
            self._trouble = trouble
            await asyncio.sleep(min(self.look_every, every))

    async def _look(self) -> str:
        """What is wrong; nothing when all is well."""
        roles = self.roles()
        for name in NEEDED:
            if name not in roles or roles[name].process.returncode is not None:
                return f"the {name} is down"
        gateway, worker = roles["gateway"], roles["worker"]
        pids = {each.process.pid for each in roles.values()}
        self._ill = {pid: since for pid, since in self._ill.items() if pid in pids}
        if (shown := roles.get(DASHBOARD)) is not None and shown.process.returncode is None:
            self._judge(shown, await self._answers(f"{shown.ready}/favicon.ico"), "the dashboard does not answer")
        answers = await self._answers(f"{gateway.ready}/healthz")
        trouble = self._judge(gateway, answers, "the gateway does not answer")
        try:
            async with asyncio.timeout(PATIENCE):
                silent = await self._silence_of(worker.process.pid)
        except (CircuitError, psycopg.Error, OSError, TimeoutError):
            self._ill.pop(worker.process.pid, None)  # nobody knows
            return trouble or "the database does not answer"
        return trouble or self._judge(worker, silent <= 0, "the worker gives no sign of life")

    def _judge(self, role: RoleProcess, well: bool, words: str) -> str:
        """``words`` unless the role is well; who has been ill for too long is ended."""
        pid, moment = role.process.pid, time.monotonic()
        if well:
            self._ill.pop(pid, None)
            return ""
        since = self._ill.setdefault(pid, moment)
        if moment - since >= self.stuck_after and role.process.returncode is None:
            say(f"{words} for {moment - since:.0f} s: it is ended, to be started again")
            with contextlib.suppress(ProcessLookupError):
                role.process.kill()
        return words

    async def _answers(self, url: str) -> bool:
        """Whether it does; a question about the process itself, which a database that is away does not change."""
        with contextlib.suppress(OSError, ValueError, TimeoutError):
            return await fetch(url) < 500
        return False

    async def _silence_of(self, pid: int) -> float:
        """Seconds for which the worker should have told the database that it lives. Raises when that is away."""
        settings = self.settings()
        url = settings.database_url or EmbeddedPostgres(settings.folder).running_url
        async with await open_connection(url, name="circuit-script heartbeat") as connection:
            hearts, host = await read_hearts(connection), this_host()
            return min((each.silent for each in hearts if (each.host, each.pid) == (host, pid)), default=float("inf"))

    async def _beat(self, url: str) -> str:
        """Tell outside. The address is a secret: it is not said."""
        try:
            status = await fetch(url)
        except (OSError, ValueError, TimeoutError) as error:
            return f"heartbeat_url cannot be reached ({getattr(error, 'strerror', None) or type(error).__name__})"
        if status >= 300:  # a redirect is not followed: who waits at its end has not heard
            return f"heartbeat_url answers {status}"
        self._told_at = time.monotonic()
        return ""


async def fetch(url: str) -> int:
    """The status of a GET, whose body is not read: a client of httpx would be half of what a supervisor weighs.

    Raises OSError, TimeoutError, or ValueError for what is no address or no HTTP.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    if not f"{host}{target}".isascii() or any(sign <= " " for sign in target):
        raise ValueError("no address")
    async with asyncio.timeout(PATIENCE):
        context = _authorities() if secure else None
        reader, writer = await asyncio.open_connection(host, parts.port or (443 if secure else 80), ssl=context)
        try:
            name = parts.netloc.rpartition("@")[2]
            words = f"GET {target} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: circuit-script\r\nConnection: close\r\n\r\n"
            writer.write(words.encode("ascii"))
            version, _, rest = (await reader.readline()).decode("latin-1").partition(" ")
            if not version.startswith("HTTP/") or not rest[:3].isdigit():
                raise ValueError("no HTTP")
            return int(rest[:3])
        finally:
            writer.close()


@cache
def _authorities() -> ssl.SSLContext:
    """Those of this machine; where it has none, as some containers, those that httpx brings."""
    context, paths = ssl.create_default_context(), ssl.get_default_verify_paths()
    folder = paths.openssl_capath
    if not os.path.exists(paths.openssl_cafile) and not (os.path.isdir(folder) and os.listdir(folder)):
        import certifi  # seldom needed

        context.load_verify_locations(certifi.where())
    return context
