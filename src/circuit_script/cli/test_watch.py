"""``circuit-script test --watch``: the tests run again whenever the app or one of its tests is saved."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.text import Text

from circuit_script.cli.dev.watch import changes
from circuit_script.cli.output import console, tell_error
from circuit_script.config import FILE, load_settings
from circuit_script.errors import CircuitError
from circuit_script.releases import content_hash

INTERRUPTED = 130
CLEAR = "\x1b[2J\x1b[3J\x1b[H"
QUIT, AGAIN = ("q", "\x04"), ("r", "\n")
KEYS = "saved changes run the tests again; r runs them now, q ends"


def watch_tests(folder: Path, run: Callable[[], int]) -> int:
    """Call ``run`` now and after each change, until somebody types q; the exit code. ``run`` shows what it finds, and
    returns the command's exit code."""
    while True:
        if sys.stdout.isatty():
            sys.stdout.write(CLEAR)
            sys.stdout.flush()
        state = _state(folder)
        try:
            load_settings(folder)
            code = run()
        except CircuitError as error:
            tell_error(error)
            code = 1
        if code == INTERRUPTED:
            return code
        console().print(Text(f"\n{KEYS}", "dim"))
        try:
            if not asyncio.run(_again(folder, state)):
                return code
        except KeyboardInterrupt:
            return INTERRUPTED


def _state(folder: Path) -> tuple[str, bytes]:
    """Tells one state of the app, its tests and its settings from another."""
    settings = folder / FILE
    return content_hash(folder), settings.read_bytes() if settings.is_file() else b""


async def _again(folder: Path, state: tuple[str, bytes]) -> bool:
    """Wait for a change since ``state``, or for a key: whether to run again."""
    with _keys() as keys:
        waiting = {asyncio.create_task(_changed(folder, state)), asyncio.create_task(_asked(keys))}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return all([await each for each in done])
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def _changed(folder: Path, state: tuple[str, bytes]) -> bool:
    async for _ in changes(folder):
        if await asyncio.to_thread(_state, folder) != state:
            return True
    return False


async def _asked(keys: asyncio.Queue[str]) -> bool:
    while True:
        match await keys.get():
            case key if key in QUIT:
                return False
            case key if key in AGAIN:
                return True


@contextlib.contextmanager
def _keys() -> Iterator[asyncio.Queue[str]]:
    """What is typed, a key at a time; nothing where there is no terminal."""
    keys: asyncio.Queue[str] = asyncio.Queue()
    if not sys.stdin.isatty():
        yield keys
        return
    terminal, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(terminal)

    def read() -> None:
        for each in os.read(terminal, 64).decode("utf-8", "replace") or "q":  # it was closed
            keys.put_nowait(each.lower())

    tty.setcbreak(terminal, termios.TCSANOW)
    loop.add_reader(terminal, read)
    try:
        yield keys
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
