"""Runs what a page of the documentation shows: its files, its commands, its snippets. One page is one story, told from
top to bottom in a scratch folder.

    ```python title="app/triggers.py"       a file of the story, written where the commands stand
    ```toml title="circuit.toml (add)"      added at the end of a file
    ```python                               run by itself; what it imports must exist
    ```console                              `$ command`, and what it must say; `…` stands for anything, lines too
    ```toml, yaml, json                     must be valid; in TOML the settings must be known
    <!-- not run: why -->                   before a block that cannot be run here

`circuit-script serve` and `dev`, and a vendor's stand-in, go on in the background until the page ends. Ports 8000 and
8765 become free ones. `logs`, `status`, `shadow` and `mirror` are asked again until they say what they must: what was
sent a moment ago may still be on its way.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from circuit_script.agents.virtual_lpr import load_profile
from circuit_script.config import FILE, load_settings
from circuit_script.errors import CircuitError
from tests.acceptance.platform import answers, environment, family, free_port, kill
from tests.servers import until

ROOT = Path(__file__).parents[2]
TIMEOUT = 120.0
PATIENCE = 20.0  # seconds in which what was sent must have become what it becomes
SHELLS_OWN = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})
PORT = re.compile(r"\b(?:8000|8765)\b")
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")
TITLE = re.compile(r'title="(?P<path>[^"]+?)(?P<add> \(add\))?"')
NOT_RUN = re.compile(r"<!-- not run: (?P<why>.+?) -->")
INCLUDED = re.compile(r'--8<-- "(?P<path>[^"]+)"')
COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
SHOWN_ONLY = frozenset({"text", "http", "nginx", "ini", "dockerfile", "procfile", "bash", "sql", "apex"})
LOOKS = re.compile(r"^circuit-script (logs|status|shadow|mirror|dead list|dead show)\b")
STANDS_IN = re.compile(r"^python -m circuit_script\.testing\.stand_ins\.\w+")
STAYS = re.compile(rf"^circuit-script (serve|dev)\b|{STANDS_IN.pattern}")


class DocumentationError(AssertionError):
    """A page says what is not so."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page, with where it stands."""

    place: str
    language: str
    text: str
    title: str | None
    adds: bool
    not_run: str | None

    def fail(self, why: str) -> DocumentationError:
        return DocumentationError(f"{self.place}: {why}")


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = page.read_text("utf-8").splitlines()
    number, why = 0, None
    while number < len(lines):
        line = lines[number]
        number += 1
        if reason := NOT_RUN.search(line):
            why = reason["why"]
        elif opening := FENCE.match(line):
            start, indent = number, len(opening["indent"])
            while number < len(lines) and lines[number].strip() != opening["ticks"]:
                number += 1
            text = "\n".join(_included(each[indent:]) for each in lines[start:number]) + "\n"
            number += 1
            info, title = opening["info"].strip(), TITLE.search(opening["info"])
            found.append(
                Block(
                    place=f"{page.relative_to(ROOT)}:{start}",
                    language=info.split(" ")[0],
                    text=text,
                    title=title["path"] if title else None,
                    adds=bool(title and title["add"]),
                    not_run=why,
                )
            )
            why = None
        elif line.strip():
            why = None
    return found


def _included(line: str) -> str:
    """A line, or the file of the project that it stands for."""
    found = INCLUDED.fullmatch(line.strip())
    return (ROOT / found["path"]).read_text("utf-8") if found else line


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block, and the lines that it must say."""

    place: str
    line: str
    said: tuple[str, ...]


def commands_of(block: Block) -> list[Command]:
    """The commands of a console block. A line that ends in a backslash goes on."""
    file, _, first = block.place.rpartition(":")
    found: list[Command] = []
    lines = block.text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        if not line.startswith("$ "):
            raise block.fail(f"a console block begins with '$ ', not with {line!r}")
        place = f"{file}:{int(first) + number + 1}"
        command = line[2:]
        while command.endswith("\\") and number + 1 < len(lines):
            number += 1
            command = command[:-1] + lines[number].strip()
        number += 1
        said: list[str] = []
        while number < len(lines) and not lines[number].startswith("$ "):
            said.append(lines[number])
            number += 1
        found.append(Command(place, command, tuple(said)))
    return found


def differs(wanted: Sequence[str], said: str) -> str | None:
    """The first wanted line that was not said, in order. Spaces count as one; ``…`` is anything."""
    given = [" ".join(line.split()) for line in COLOUR.sub("", said).splitlines()]
    at = 0
    for line in wanted:
        words = " ".join(line.split())
        if words in ("…", ""):
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in words.split("…")))
        while at < len(given) and not pattern.fullmatch(given[at]):
            at += 1
        if at == len(given):
            return line
        at += 1
    return None


@dataclass
class Story:
    """One page, run in ``folder`` on ``port``; ``settings`` are variables for its commands."""

    folder: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    vendor_port: int = field(init=False, default_factory=free_port)
    here: Path = field(init=False)
    ran: int = 0
    skipped: list[str] = field(default_factory=list)
    _serving: list[tuple[Command, subprocess.Popen[str], Path]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.here = self.folder
        self.variables = {
            **{name: value for name, value in environment(None).items() if not name.startswith("COVERAGE")},
            **self.settings,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "CIRCUIT_GATEWAY__PORT": str(self.port),
            "COLUMNS": "120",
            "NO_COLOR": "1",
        }

    @cached_property
    def _state(self) -> Path:
        made = self.folder / ".story"
        made.mkdir()
        return made

    def tell(self, blocks: Sequence[Block]) -> None:
        """Run every block. Raises DocumentationError with the page and line of the first that is wrong."""
        for block in blocks:
            if block.not_run is not None:
                self.skipped.append(f"{block.place}: {block.not_run}")
                continue
            self._run(block)
            self.ran += 1

    def end(self) -> None:
        """End what the page left running."""
        for _, process, _ in self._serving:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for _, process, _ in self._serving:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            kill(family(process.pid))
            process.wait(30)

    def _run(self, block: Block) -> None:
        check = CHECKS.get(block.language)
        if block.language == "console":
            for command in commands_of(block):
                self._command(command)
        elif check is None and block.language not in SHOWN_ONLY:
            raise block.fail(f"nobody knows how to run {block.language or 'a block without a language'!r}")
        elif check is not None:
            if block.title is not None:
                self._write(block)
            check(self, block)

    def _ported(self, text: str) -> str:
        return PORT.sub(lambda found: str(self.port if found[0] == "8000" else self.vendor_port), text)

    def _write(self, block: Block) -> None:
        path = (self.here / str(block.title)).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise block.fail(f"{block.title} is outside of the story's folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self._ported(block.text)
        before = path.read_text("utf-8") + "\n" if block.adds and path.exists() else ""
        path.write_text(before + text, "utf-8")

    def _command(self, command: Command) -> None:
        line = self._ported(command.line)
        said = self._ported("\n".join(command.said)).splitlines()
        if STAYS.match(line):
            return self._start(command, line, said)
        give_up = time.monotonic() + (PATIENCE if LOOKS.match(line) else 0)
        while True:
            ran = self._shell(command, line)
            out = ran.stdout + ran.stderr
            missing = differs(said, out)
            if ran.returncode == 0 and missing is None:
                return None
            if time.monotonic() > give_up:
                break
        if ran.returncode:
            raise DocumentationError(f"{command.place}: `{line}` ended with {ran.returncode}:\n{out}{self._logs()}")
        raise DocumentationError(f"{command.place}: `{line}` did not say {missing!r} but:\n{out}{self._logs()}")

    def _shell(self, command: Command, line: str) -> subprocess.CompletedProcess[str]:
        """Run one command where the last one left off: its folder and its variables are kept for the next."""
        where = self._state
        script = f"set -o allexport\n{line}\nended=$?\npwd > {where}/pwd\nenv -0 > {where}/env\nexit $ended"
        try:
            ran = subprocess.run(
                ["bash", "-c", script],
                cwd=self.here,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise DocumentationError(f"{command.place}: `{line}` did not end within {TIMEOUT:g} s") from None
        if not ran.returncode:
            self.here = Path((where / "pwd").read_text().rstrip("\n"))
            kept = (entry.partition("=") for entry in (where / "env").read_text().split("\0") if entry)
            self.variables = {name: value for name, _, value in kept if name not in SHELLS_OWN}
        return ran

    def _start(self, command: Command, line: str, said: Sequence[str]) -> None:
        log = self._state / f"serving{len(self._serving)}"
        with log.open("w") as out:
            process = subprocess.Popen(
                shlex.split(line), cwd=self.here, env=self.variables, stdout=out, stderr=out, text=True
            )
        self._serving.append((command, process, log))

        def up() -> bool:
            if process.poll() is not None:
                raise DocumentationError(
                    f"{command.place}: `{line}` ended with {process.returncode}:\n{log.read_text()}"
                )
            ready = STANDS_IN.match(line) is not None or answers(self.port, "/readyz") == 200
            return ready and differs(said, log.read_text()) is None

        try:
            until(up, f"`{line}` to be ready and to say so", 60)
        except AssertionError as error:
            if isinstance(error, DocumentationError):
                raise
            missing = differs(said, log.read_text())
            raise DocumentationError(f"{command.place}: {error}; not said: {missing!r}\n{log.read_text()}") from None

    def _logs(self) -> str:
        return "".join(f"\n-- {command.line}:\n{log.read_text()[-3000:]}" for command, _, log in self._serving)


def _python(story: Story, block: Block) -> None:
    try:
        compile(block.text, block.place, "exec")
    except SyntaxError as error:
        raise block.fail(f"{error.msg}, line {error.lineno} of the block") from None
    if (block.title or "").startswith("tests/"):
        return  # `circuit-script test` runs it
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=story.here,
        env=story.variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    if ran.returncode:
        raise block.fail(f"the snippet failed:\n{ran.stderr}")


def _toml(story: Story, block: Block) -> None:
    try:
        tomllib.loads(block.text)
    except tomllib.TOMLDecodeError as error:
        raise block.fail(f"{error}") from None
    if block.title == "lpr.toml":
        folder, name = story.here, "lpr.toml"
    elif block.title in (None, FILE):
        folder, name = (story.here, FILE) if block.title else (_scratch(story, FILE, block.text), FILE)
    else:
        return
    try:
        if name == FILE:
            load_settings(folder)
        else:
            load_profile(folder / name)
    except (CircuitError, ValueError) as error:
        raise block.fail(str(error)) from None


def _scratch(story: Story, name: str, text: str) -> Path:
    folder = story.folder / ".alone"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, "utf-8")
    return folder


def _yaml(_: Story, block: Block) -> None:
    try:
        list(yaml.safe_load_all(block.text))
    except yaml.YAMLError as error:
        raise block.fail(str(error)) from None


def _json(_: Story, block: Block) -> None:
    try:
        json.loads(block.text)
    except ValueError as error:
        raise block.fail(str(error)) from None


CHECKS: Mapping[str, Callable[[Story, Block], None]] = {
    "python": _python,
    "toml": _toml,
    "yaml": _yaml,
    "json": _json,
}


@contextlib.contextmanager
def told(story: Story) -> Iterator[Story]:
    """The story, with nothing of it left running afterwards."""
    try:
        yield story
    finally:
        story.end()
