"""One run of `dev`: a supervisor whose worker reloads when the app's files change, and that starts its roles again when
its settings do."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import psycopg

from circuit_script.cli.control import Line, Reload, Running, Wrong
from circuit_script.cli.dev.keys import role_environment
from circuit_script.cli.dev.terminal import Screen, show_error
from circuit_script.cli.dev.watch import changes
from circuit_script.cli.role_process import More, say
from circuit_script.cli.supervisor import Explained, Supervisor, database_of
from circuit_script.config import FILE, Settings
from circuit_script.db.pool import open_connection
from circuit_script.errors import CircuitError, ConfigError, StartError
from circuit_script.events.sources import open_sources
from circuit_script.governor import limits_of
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.listening import listen
from circuit_script.tenants import TenantMap, Tiers

GOES_ON = "still running the last good version"
WAITS = "nothing runs yet: waiting for the fix"
OLD_SETTINGS = "still running with the settings before"


class DevSession(Supervisor):
    """``load`` reads the settings as they are on disk now; it raises ConfigError when they are wrong."""

    def __init__(self, load: Callable[[], Settings]) -> None:
        super().__init__(load())
        self._load = load
        self._environment = role_environment(self._settings)
        self._screen = Screen()
        self._began = time.monotonic()
        self._line: Line | None = None
        self._listening: asyncio.Task[Wrong | None] | None = None
        self._running: Running | None = None
        self._wrong: Wrong | None = None  # what was last said about the app
        self._wrong_settings = ""
        self._asked = 0.0
        self._saved = asyncio.Event()  # the app's files may have changed
        self._settings_saved = asyncio.Event()
        self._up = asyncio.Event()  # the worker listens
        self._answered = asyncio.Event()
        self._settled = asyncio.Event()  # every role runs
        self._linked = False  # the developer was given a link to sign in
        self._following: list[asyncio.Task[None]] = []

    async def _start_roles(self) -> None:
        for work in (self._watch_files, self._follow_app, self._follow_settings):
            task = asyncio.create_task(work())
            task.add_done_callback(self._say_lost)
            self._following.append(task)
        await super()._start_roles()
        self._settled.set()

    async def _end(self) -> None:
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        await super()._end()
        if self._listening is not None:
            await self._listening

    def _reload(self) -> None:
        self._saved.set()

    def _say_lost(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            told = StartError(
                f"Changes are not followed any more: {error!r}.", cure="Stop dev and start it again.", page="start"
            )
            self._show(told, GOES_ON)

    # The worker: its line, and its starts.

    async def _more_for(self, name: str) -> More:
        if name != "worker":
            return More(("--dev",), (), self._environment)
        ours, theirs = socket.socketpair()
        self._line = await Line.open(ours)
        self._listening = asyncio.create_task(self._listen(self._line))
        return More(("--dev", "--control-fd", str(theirs.fileno())), (theirs.detach(),), self._environment)

    async def _listen(self, line: Line) -> Wrong | None:
        """Show what a worker says of its app until it ends; its last word, if that was about something wrong."""
        word, last = await line.hear(), None
        while word is not None:
            last = word
            self._heard(word)
            word = await line.hear()
        self._up.clear()
        self._answered.set()
        line.close()
        return last if isinstance(last, Wrong) else None

    async def _begin(self, name: str) -> None:
        """As the supervisor does; but a worker whose app does not import waits for the fix."""
        while not self._stop.is_set():
            self._saved.clear()
            try:
                return await super()._begin(name)
            except Explained:
                if name != "worker" or not await self._app_is_wrong():
                    raise
                await self._wait_for(self._saved, self._settings_saved)
                self._take(self._new_settings())

    async def _pause_after(self, name: str, error: StartError | OSError, pause: float) -> float:
        if name != "worker" or not isinstance(error, Explained) or not await self._app_is_wrong():
            return await super()._pause_after(name, error, pause)
        await self._wait_for(self._saved)
        return 0.0

    async def _app_is_wrong(self) -> bool:
        """Whether that is why the worker has just ended."""
        return self._listening is not None and await self._listening is not None

    async def _wait_for(self, *events: asyncio.Event) -> None:
        """Wait for one of the events, or for the end."""
        waits = [asyncio.create_task(each.wait()) for each in (*events, self._stop)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()

    # Files.

    async def _watch_files(self) -> None:
        async for changed in changes(self._settings.folder):
            if changed.app:
                self._saved.set()
            if changed.settings:
                self._settings_saved.set()

    async def _follow_app(self) -> None:
        """Have the worker reload whenever something was saved; what is saved meanwhile makes one more reload."""
        while True:
            await self._saved.wait()
            await self._up.wait()
            self._saved.clear()
            self._answered.clear()
            self._asked = time.monotonic()
            if self._line is not None:
                await self._line.say(Reload())
                await self._answered.wait()

    async def _follow_settings(self) -> None:
        """Start the roles again with settings that are right; wrong ones are shown, and those before stay."""
        while True:
            await self._settings_saved.wait()
            await self._settled.wait()
            new = self._new_settings()
            if new is not None:
                self._screen.show((f"{FILE} changed: restarting what runs", "bold"))
                await self._restart_with(new)

    def _new_settings(self) -> Settings | None:
        """The settings on disk, if they are others than ours, and can be used."""
        self._settings_saved.clear()
        ours = self._settings
        try:
            new = self._load()
            open_sources(new.sources)
            limits_of(new.limits)
            CircuitGovernor.of_settings(new)
            TenantMap(new.accounts)
            Tiers.of_settings(new)
            if new.database_url != ours.database_url:
                raise ConfigError("The database is another one now.", cure="Stop dev and start it again.")
            if (new.gateway.host, new.gateway.port) != (ours.gateway.host, ours.gateway.port):
                listen(new.gateway.host, new.gateway.port).close()
        except CircuitError as error:
            if str(error) != self._wrong_settings:
                self._wrong_settings = str(error)
                self._show(error, OLD_SETTINGS)
            return None
        if self._wrong_settings:
            self._screen.show((f"{FILE} is right again", "green"))
            self._wrong_settings = ""
        return new if new != ours else None

    def _take(self, new: Settings | None) -> None:
        if new is None:
            return
        if new.gateway.port != self._settings.gateway.port:
            self._roles.pop("gateway", None)  # with the port that the first one was given
        if (new.dashboard.host, new.dashboard.port) != (self._settings.dashboard.host, self._settings.dashboard.port):
            self._roles.pop("dashboard", None)
        self._settings = new
        self._environment = role_environment(new)

    async def _restart_with(self, new: Settings | None) -> None:
        began = time.monotonic()
        names = ("dashboard", "gateway", "worker")
        watchers = [self._watchers.pop(name) for name in names if name in self._watchers]
        for each in watchers:
            each.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        await self._end_roles()
        self._standings.clear()
        self._take(new)
        while not self._stop.is_set():
            try:
                for name in ("worker", "gateway"):
                    if name not in self._watchers:
                        await self._begin(name)
                address = self._roles["gateway"].ready
                self._screen.show((f"restarted in {time.monotonic() - began:.1f} s: {address}/", "green"))
                return self._begin_dashboard()
            except (StartError, OSError) as error:
                self._show(error if isinstance(error, CircuitError) else StartError(str(error)), WAITS)
                await self._wait_for(self._saved, self._settings_saved)
                self._take(self._new_settings())

    # Words.

    def _heard(self, word: Running | Wrong) -> None:
        self._answered.set()
        match word:
            case Wrong():
                if word != self._wrong:
                    self._wrong = word
                    self._show(word.as_error(), GOES_ON if self._running is not None else WAITS)
            case Running():
                before, wrong = self._running, self._wrong
                self._running, self._wrong = word, None
                self._up.set()
                if before is not None:
                    self._show_running(word, before, wrong)

    def _show_running(self, word: Running, before: Running, wrong: Wrong | None) -> None:
        if word.changed and word.seconds:
            took = time.monotonic() - self._asked
            self._screen.show((f"reloaded in {took:.2f} s", "bold green"), f": {counted(word)}")
            new = [each for each in word.endpoints if each not in before.endpoints]
            if new:
                self._screen.show((f"  new: {', '.join(new)}", "cyan"))
        elif wrong is not None:
            self._screen.show(("running again" if word.changed else "back to the version that runs", "green"))

    def _show(self, error: CircuitError, after: str) -> None:
        show_error(self._screen, error, self._settings.folder, after=after)

    def _say_ready(self, address: str) -> None:
        what = counted(self._running) if self._running is not None else ""
        rows = [
            ("status", f"{address}/"),
            ("webhooks", f"{address}/webhooks/gohighlevel  ·  {address}/webhooks/standard/test"),
        ]
        if self._running is not None and self._running.endpoints:
            lines = [f"{method} {address}{path}" for method, path in map(str.split, self._running.endpoints)]
            rows.extend(zip(["endpoints", *[""] * (len(lines) - 1)], lines, strict=True))
            rows.append(("OpenAPI", f"{address}/openapi.json"))
        rows.append(("try it", "circuit-script send gohighlevel"))
        rows.append(("logs", "here as they come; all of them: circuit-script logs"))
        took = time.monotonic() - self._began
        self._screen.show(
            (f"\nready in {took:.1f} s", "bold green"),
            f": {what}\n",
            *(part for name, words in rows for part in ((f"\n  {name:<11}", "dim"), words)),
            ("\n\nsave a file and it runs; Ctrl-C stops\n", "dim"),
        )

    async def _say_dashboard(self, address: str) -> None:
        url = self._settings.dashboard.url or address
        how = "" if self._linked else await self._sign_in_link(url)
        rows = [("dashboard", how or f"{url}/")]
        if how:
            rows.append(
                ("", "signs you in as the owner: once, for 10 minutes; another one: circuit-script people link")
            )
        self._screen.show(*(part for name, words in rows for part in ((f"\n  {name:<11}", "dim"), words)), "\n")

    async def _sign_in_link(self, url: str) -> str:
        """A link that signs the developer in; nothing where there is none, which the dashboard then explains."""
        from circuit_script.access import one_time_link  # only who has a dashboard needs passwords and sessions

        try:
            async with await open_connection(await database_of(self._settings, started=True)) as connection:
                link = await one_time_link(connection, url)
        except (CircuitError, psycopg.Error) as error:
            say(f"no link to sign in: {error}")
            return ""
        self._linked = True
        return link


def counted(word: Running) -> str:
    """`3 handlers, 1 endpoint`."""
    counts = [(word.handlers, "handler"), (len(word.endpoints), "endpoint")]
    return ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for n, name in counts if n or name == "handler")
