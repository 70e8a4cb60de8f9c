"""Starts the roles of one host, restarts what dies, and ends them in the order in which nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec

import msgspec

from circuit_script import supervised
from circuit_script.cli.hangup import Terminal
from circuit_script.cli.heartbeat import Heart
from circuit_script.cli.init_system import InitSystem
from circuit_script.cli.role_process import More, RoleProcess, reading, say, terminate
from circuit_script.config import Settings
from circuit_script.db.embedded import EmbeddedPostgres
from circuit_script.db.migrate import migrate
from circuit_script.errors import StartError
from circuit_script.listening import listen

START_TIMEOUT = 60.0
GATEWAY_GRACE = 18.0  # the gateway gives requests 10 s, and then flushes
SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
LONGEST_WITHOUT = 60.0  # seconds that the dashboard, without which all goes on, waits for its next attempt
HOUR = 3600.0
DASHBOARD_GRACE = 8.0  # it gives pages that are open 3 s
EXPLAINED = 1
DASHBOARD = "pip install 'circuit-script[dashboard]'"


async def database_of(settings: Settings, *, started: bool = False) -> str:
    """The URL of the migrated database: ``DATABASE_URL``, or the embedded one.

    ``started`` says that a supervisor has it running and migrated already.
    """
    if settings.database_url is not None:
        if not started:
            await migrate(settings.database_url, tell=_warn)
        return settings.database_url
    url = await EmbeddedPostgres(settings.folder).start()
    if not started:
        await migrate(url, tell=_warn)
    return url


def _warn(words: str) -> None:
    say(f"warning: {words}")


class Explained(StartError):
    """Circuit Script cannot start."""


class Supervisor:
    """``serve`` without a role: PostgreSQL (if embedded), worker, gateway, and beside them the dashboard."""

    def __init__(self, settings: Settings, *, folder_release: bool = False) -> None:
        self._settings = settings
        self._folder_release = folder_release  # of the first worker: one that is started again follows what is live
        self._roles: dict[str, RoleProcess] = {}
        self._standings: dict[str, supervised.Standing] = {}
        self._init = InitSystem()
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()
        self._signals = 0
        self._terminal = Terminal()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; a second signal ends everything at once. SIGHUP reloads the app."""
        with self._only_one_here():
            loop = asyncio.get_running_loop()
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(each, self._signalled)
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)
            listen(self._settings.gateway.host, self._settings.gateway.port).close()  # refused before anything starts
            say("starting PostgreSQL" if self._settings.database_url is None else "connecting to the database")
            try:
                await database_of(self._settings)
                await self._start_roles()
                self._init.ready()
                await self._stop.wait()
            except Explained:
                raise SystemExit(EXPLAINED) from None
            finally:
                self._init.stopping()
                await self._end()
                supervised.forget(self._settings.state)

    def _signalled(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            for each in self._roles.values():
                with contextlib.suppress(ProcessLookupError):
                    each.process.kill()
            if self._settings.database_url is None:
                EmbeddedPostgres(self._settings.folder).dismiss()
            say("stopped at once. What was acknowledged is in the ledger and goes on at the next start.")
            os._exit(130)
        say("stopping: what runs is finished first (again to stop at once)")

    def _hung_up(self) -> None:
        if self._terminal.is_gone():  # the shell that ends with it may say so twice: never a reason to hurry
            self._stop.set()
        else:
            self._reload()

    def _reload(self) -> None:
        """Have the worker run the app as its files are now."""
        worker = self._roles.get("worker")
        if worker is not None:
            say("reloading the app; what came of it stands in the worker's log")
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGHUP)

    @contextlib.contextmanager
    def _only_one_here(self) -> Iterator[None]:
        """One supervisor per folder; the kernel frees the lock when its holder dies."""
        try:
            self._settings.state.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._settings.state / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(
                f"{error.strerror}: {self._settings.state}.",
                cure="Let this user write to the app's folder, run as its owner, or free some space.",
                page="folder-not-writable",
            ) from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
                raise StartError(
                    f"Another circuit-script serve (process {owner}) runs in {self._settings.folder}.",
                    cure=f"Stop it (kill {owner}), or use another folder.",
                    page="already-running",
                ) from None
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(lock)

    async def _start_roles(self) -> None:
        """The worker first: it makes the release live, without which nothing could be routed."""
        for name in ("worker", "gateway"):
            say(f"starting the {name}")
            await self._begin(name)
            if self._stop.is_set():
                return
        if self._settings.database_url is None:
            self._watchers["database"] = asyncio.create_task(self._watch_database())
        self._watchers["heart"] = asyncio.create_task(Heart(lambda: self._settings, lambda: self._roles).run())
        if self._init.every is not None:
            self._watchers["init"] = asyncio.create_task(self._tell_init(self._init.every))
        self._say_ready(self._roles["gateway"].ready)
        self._begin_dashboard()

    def _begin_dashboard(self) -> None:
        """Start it beside the others, which do not wait for it, if it is wanted and there."""
        if not self._settings.dashboard.enabled or self._stop.is_set():
            return
        if find_spec("nicegui") is not None:
            self._watchers["dashboard"] = asyncio.create_task(self._keep_dashboard())
        else:
            say(f"no dashboard: {DASHBOARD} brings it, [dashboard] enabled = false keeps it away")

    async def _keep_dashboard(self) -> None:
        """Keep it running, however often its first start fails."""
        started = await self._insist("dashboard", 0.0)
        if started is not None:
            await self._say_dashboard(started.ready)
            await self._watch(started)

    async def _say_dashboard(self, address: str) -> None:
        say(f"dashboard: {self._settings.dashboard.url or address}/")

    async def _tell_init(self, every: float) -> None:
        while True:
            self._init.alive()
            await asyncio.sleep(every)

    async def _begin(self, name: str) -> None:
        """Start a role, and keep it running from then on."""
        started = await self._start(name)
        if not self._stop.is_set():
            self._watchers[name] = asyncio.create_task(self._watch(started))

    def _say_ready(self, address: str) -> None:
        say(f"ready: {address}/ shows what happens; webhooks go to {address}/webhooks/gohighlevel")

    async def _more_for(self, name: str) -> More:
        """What a role is started with besides what all have."""
        return More(["--folder-release"] if self._folder_release and name == "worker" else ())

    async def _start(self, name: str) -> RoleProcess:
        """Start a role and wait until it says that it is ready. Raises StartError when it ends instead."""
        more = await self._more_for(name)
        receive, send = os.pipe()
        command = [
            sys.executable, "-m", "circuit_script.cli", "serve", "--role", name, "--supervised", str(os.getpid()),
            "--folder", str(self._settings.folder), "--port", str(self._port(name)), "--ready-fd", str(send),
            *more.arguments,
        ]  # fmt: skip
        try:
            # In a session of its own: the terminal's Ctrl-C is for us, who end the roles in their order.
            process = await asyncio.create_subprocess_exec(
                *command,
                pass_fds=[send, *more.descriptors],
                start_new_session=True,
                env={**os.environ, **more.environment},  # not arguments: every user of this host can read those
            )
        finally:
            for each in (send, *more.descriptors):
                os.close(each)
        try:
            async with reading(receive) as reader:
                words = await self._first_words(reader)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        if words is None:
            process.kill()
            raise StartError(f"The {name} was not ready after {START_TIMEOUT:g} s.")
        if not words.endswith(b"\n"):
            if self._stop.is_set():
                await terminate(process, GATEWAY_GRACE)
                return RoleProcess(name, process, "")
            code = await process.wait()
            kind = Explained if code == EXPLAINED else StartError
            raise kind(f"The {name} ended with status {code}; what it said stands above.")
        if name == "worker":
            self._folder_release = False
        role = self._roles[name] = RoleProcess(name, process, words.decode().strip())
        self._note(name, supervised.Standing(process.pid, role.ready, time.time()))
        return role

    def _note(self, name: str, standing: supervised.Standing, *, ended: bool = False) -> None:
        """Tell of a role; how often it ended within the last hour stays known."""
        moment = time.time()
        before = self._standings.get(name, supervised.Standing())
        again = (moment,) if ended else ()
        restarts = tuple(each for each in before.restarts if each > moment - HOUR) + again
        self._standings[name] = msgspec.structs.replace(standing, restarts=restarts)
        supervised.tell(self._settings.state, supervised.Roles(os.getpid(), self._standings))

    async def _first_words(self, reader: asyncio.StreamReader) -> bytes | None:
        """What a role says when it is ready; nothing when it ends or we are told to stop, None when time is up."""
        said = asyncio.create_task(reader.readline())
        told = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait({said, told}, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            return said.result() if said in done else b"" if told in done else None
        finally:
            for task in (said, told):
                task.cancel()

    def _port(self, name: str) -> int:
        """A restarted gateway or dashboard keeps the port that the first one was given."""
        before = self._roles.get(name)
        if before is not None and name != "worker":
            return int(before.ready.rpartition(":")[2])
        return self._settings.dashboard.port if name == "dashboard" else self._settings.gateway.port

    async def _watch(self, role: RoleProcess) -> None:
        """Restart the role whenever it ends, at once if it had lived for a while."""
        pause = SHORTEST_PAUSE
        while not self._stop.is_set():
            code = await role.process.wait()
            if self._stop.is_set():
                return
            pause = SHORTEST_PAUSE if time.monotonic() - role.since > 30 else min(LONGEST_PAUSE, pause * 2)
            say(f"the {role.name} ended with status {code}; starting it again in {pause:.1f} s")
            self._note(role.name, supervised.Standing(down=f"it ended with status {code}"), ended=True)
            started = await self._insist(role.name, pause)
            if started is None:
                return
            role = started

    async def _insist(self, name: str, pause: float) -> RoleProcess | None:
        """Start a role after a pause, again and again until it runs; None when we are told to stop."""
        longest = LONGEST_WITHOUT if name == "dashboard" else LONGEST_PAUSE
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
                return None
            try:
                return await self._start(name)
            except (StartError, OSError) as error:
                self._note(name, supervised.Standing(down=str(error)))
                pause = await self._pause_after(name, error, min(longest, max(pause, SHORTEST_PAUSE) * 2))
        return None

    async def _pause_after(self, name: str, error: StartError | OSError, pause: float) -> float:
        """Say why a role did not start; how many seconds later it is to be tried again."""
        if name == "dashboard" and isinstance(error, Explained):
            pause = max(pause, LONGEST_PAUSE)  # it has said why, and that does not pass by itself
        say(f"{error} Trying again in {pause:.1f} s.")
        return pause

    async def _watch_database(self) -> None:
        """The embedded server outlives us, but should it die, it is started again."""
        embedded = EmbeddedPostgres(self._settings.folder)
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 1.0)
                return
            if not embedded.running():
                say("PostgreSQL is gone; starting it again")
                try:
                    await embedded.start()
                except (StartError, OSError) as error:
                    say(str(error))

    async def _end(self) -> None:
        """Gateway, then worker, then database: nothing is accepted that could not be kept."""
        for each in self._watchers.values():
            each.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        await self._end_roles()
        if self._settings.database_url is None:
            await EmbeddedPostgres(self._settings.folder).stop()
        say("stopped")

    async def _end_roles(self) -> None:
        door = {"dashboard": DASHBOARD_GRACE, "gateway": GATEWAY_GRACE}
        await asyncio.gather(*(self._end_role(name, grace) for name, grace in door.items()))
        await self._end_role("worker", self._settings.worker.drain + 10)

    async def _end_role(self, name: str, grace: float) -> None:
        role = self._roles.get(name)
        if role is not None:
            await terminate(role.process, grace)
