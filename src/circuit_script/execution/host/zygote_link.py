"""The worker's end of a zygote: starts it, takes its manifest, orders forks, and hears of ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from circuit_script.errors import AppError, IsolationUnavailable
from circuit_script.execution.hardening import governed_environment
from circuit_script.execution.isolation.emptying import remove
from circuit_script.execution.nursery import (
    MAX_PACKET,
    Assignment,
    Broken,
    Document,
    Ended,
    Fork,
    Forked,
    FromZygote,
    Handler,
    Hosting,
    NotForked,
    Ready,
    WebApp,
    encode,
    from_zygote,
)
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor import Limits

IMPORT_PATIENCE = 60.0
DYING = 5.0  # seconds that a killed process may need to be gone
USUAL = Hosting()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the app declares, and what was noticed while it was imported.

    ``openapi`` is the JSON document of its endpoints, empty when there are none.
    """

    handlers: tuple[HandlerSpec, ...]
    warnings: tuple[str, ...]
    fingerprint: str = ""
    openapi: bytes = b""
    slow: bool = False  # a child needs a while before it can run anything
    hides: bool = True  # settings and state are out of the handlers' sight


class Parent(Protocol):
    """Who hears what the zygote says."""

    def on_forked(self, number: int, pid: int, pidfd: int) -> None: ...

    def on_not_forked(self, number: int, reason: str) -> None: ...

    def on_ended(self, pid: int, code: int) -> None: ...

    def on_zygote_death(self, zygote: ZygoteLink) -> None: ...


class ZygoteLink:
    """One zygote process."""

    def __init__(
        self,
        folder: Path,
        app: str,
        limits: Limits,
        parent: Parent,
        web: WebApp | None = None,
        objects: tuple[str, ...] = (),
        hosting: Hosting = USUAL,
    ) -> None:
        self._objects = objects
        self._hosting = hosting
        self._folder = folder.resolve()
        self._app = app
        self._limits = limits
        self._web = web
        self._parent = parent
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Manifest] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._handlers: list[HandlerSpec] = []
        self._openapi = b""
        self._killing: asyncio.TimerHandle | None = None
        self._scratch = ""
        self.pid = 0

    async def start(self) -> Manifest:
        """Import the app in a new process. Raises AppError when that fails, IsolationUnavailable when the kernel does
        not let it be fenced in as is wanted; nothing is left of it then, nor when this is cancelled."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        try:
            with theirs:
                self._process, self._pidfd = self._begun(theirs)
        except OSError as error:  # no memory, too many processes, an interpreter that this user may not run
            raise self._unborn(error) from error
        except BaseException:
            self._discard()
            raise
        self.pid = self._process.pid
        self._loop.add_reader(self._control, self._on_readable)
        self._loop.add_reader(self._pidfd, self._on_death)
        try:
            return await asyncio.wait_for(self._ready, IMPORT_PATIENCE)
        except TimeoutError:
            raise AppError(
                f"importing {self._app!r} takes longer than {IMPORT_PATIENCE:g} s.",
                cure="Move slow work from the top of its modules into the handlers.",
                page="import-failed",
            ) from None
        except BaseException:
            self._ready.cancel()
            raise
        finally:
            if not self._ready.done() or self._ready.cancelled() or self._ready.exception() is not None:
                await self.end()

    def _unborn(self, error: OSError) -> AppError:
        self._discard()
        return AppError(
            f"the process that hosts {self._app!r} cannot be started: {error}.",
            cure=f"Free memory or processes of this host, and let this user run {sys.executable}.",
            page="import-failed",
        )

    def _discard(self) -> None:
        """No process could be made: nothing is left of this link."""
        self._control.close()
        self._ready.cancel()
        if self._scratch:
            remove(self._scratch)
        self._parent.on_zygote_death(self)

    def _begun(self, theirs: socket.socket) -> tuple[subprocess.Popen[bytes], int]:
        """The process, and a descriptor of it; none is left where there is no room for the other."""
        process = self._spawn(theirs)
        try:
            return process, os.pidfd_open(process.pid)
        except BaseException:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            raise

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        if self._hosting.isolation == "strict" and os.geteuid() != 0:
            self._scratch = tempfile.mkdtemp(prefix="circuit-")
        assignment = Assignment(
            theirs.fileno(),
            os.getpid(),
            str(self._folder),
            self._app,
            self._limits,
            self._web,
            self._objects,
            self._hosting,
            self._scratch,
        )
        python = self._hosting.python or sys.executable
        return subprocess.Popen(
            [python, "-P", "-m", "circuit_script.execution.zygote.zygote", msgspec.json.encode(assignment)],
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__ or subprocess.DEVNULL,
            cwd=self._folder if self._folder.is_dir() else None,
            env=governed_environment(dict(os.environ)),
            pass_fds=[theirs.fileno(), *([probes] if (probes := self._hosting.probes) >= 0 else [])],
        )

    def fork(self, number: int, sock: socket.socket, memory: int) -> None:
        """Order a child, with its end of the socket and its shared memory. Raises OSError when the zygote is gone."""
        socket.send_fds(self._control, [encode(Fork(number))], [sock.fileno(), memory])

    def hang_up(self, patience: float) -> None:
        """Let the zygote end by itself, with what children it still has; kill it after ``patience`` seconds."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        self._killing = self._loop.call_later(patience, self.kill)

    def kill(self) -> None:
        """End the zygote, and with it every child."""
        with suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it, and return when its descriptors are closed, too: who asked may be about to end the loop."""
        self.kill()
        await asyncio.wait({self._gone}, timeout=DYING)

    def _on_readable(self) -> None:
        while True:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return None
            except OSError:
                packet = b""
            if not packet:
                self._loop.remove_reader(self._control)
                return self.kill()
            try:
                self._on_word(from_zygote.decode(packet), descriptors)
            except msgspec.MsgspecError:  # code that ran during the import wrote on our descriptor
                return self.kill()

    def _on_word(self, word: FromZygote, descriptors: list[int]) -> None:
        match word:
            case Handler(spec):
                self._handlers.append(spec)
            case Document(part):
                self._openapi += part
            case Ready(warnings, fingerprint, slow, hides):
                manifest = Manifest(tuple(self._handlers), warnings, fingerprint, self._openapi, slow, hides)
                if not self._ready.done():
                    self._ready.set_result(manifest)
            case Broken(detail, cure, page):
                kind = IsolationUnavailable if page == IsolationUnavailable.page else AppError
                if not self._ready.done():
                    self._ready.set_exception(kind(detail, cure=cure, page=page))
            case Forked(number, pid):
                self._parent.on_forked(number, pid, descriptors[0])
            case NotForked(number, reason):
                self._parent.on_not_forked(number, reason)
            case Ended(pid, code):
                self._parent.on_ended(pid, code)

    def _on_death(self) -> None:
        if self._killing is not None:
            self._killing.cancel()
        with suppress(OSError):
            self._on_readable()  # its last words
        self._loop.remove_reader(self._control)
        self._loop.remove_reader(self._pidfd)
        self._control.close()
        os.close(self._pidfd)
        code = self._process.wait()
        self._gone.set_result(None)
        if self._scratch:
            self._loop.run_in_executor(None, remove, self._scratch)  # it may take long
        if not self._ready.done():
            self._ready.set_exception(
                AppError(
                    f"importing {self._app!r} ended its process with code {code}.",
                    cure="Look for os._exit or a crash at the top of its modules.",
                    page="import-failed",
                )
            )
        self._parent.on_zygote_death(self)
