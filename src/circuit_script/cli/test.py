"""``circuit-script test``: the app's tests, in real children under their limits."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import print_json
from circuit_script.cli.test_shown import show
from circuit_script.config import Settings, load_settings
from circuit_script.errors import TestsRefused
from circuit_script.testing.databases import stop_left_behind
from circuit_script.testing.report import report

NAME = "test"
EXAMPLES = (
    "Examples:  circuit-script test  ·  circuit-script test -k lead  ·  circuit-script test -- -x tests/test_chat.py"
    "  ·  circuit-script test --watch  ·  circuit-script test --json | jq .refusals"
)
PASSED, FAILED, INTERRUPTED, MISUSED, NO_TESTS = 0, 1, 2, 4, 5  # pytest's exit codes
PYTEST_ENDED = range(6)  # others: it was killed
TESTS = "tests"
CONFIGURED = ("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "pyproject.toml", "tox.ini", "setup.cfg")
LOOP_SCOPE = "asyncio_default_fixture_loop_scope"


def run(
    arguments: Annotated[list[str] | None, typer.Argument(help="For pytest, after --.", show_default=False)] = None,
    folder: Folder = None,
    keyword: Annotated[str | None, typer.Option("-k", help="Only tests whose names fit, as pytest's -k.")] = None,
    bulk: Annotated[bool, typer.Option("--bulk/--no-bulk", help="Try each trigger on 200 records, too.")] = True,
    record: Annotated[bool, typer.Option("--record", help="Record what real models answer; it costs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Run again on each change of the app; q ends it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts; pytest then writes to standard error.")] = False,
) -> None:
    """Run the app's tests with pytest, each on a database of its own, and say what would refuse a deploy: coverage
    under 75 percent, limits used to more than 80, a trigger that does not take 200 records. Exit codes: 0 passed, 1
    failed or refused."""
    if watch and record:  # what is recorded is saved, and would be asked again for that, without an end
        raise typer.BadParameter("--record asks real models, which costs: record once, then --watch")
    if importlib.util.find_spec("pytest") is None:
        raise TestsRefused("pytest is not installed.", cure="pip install 'circuit-script[test]'")
    settings = load_settings(app_folder(folder))
    wanted = Wanted(keyword, tuple(arguments or ()), bulk, record)
    if watch:
        from circuit_script.cli.test_watch import watch_tests  # the watcher of files is nobody else's

        raise typer.Exit(watch_tests(settings.folder, lambda: told(load_settings(settings.folder), wanted)))
    raise typer.Exit(told(settings, wanted, as_json=as_json))


def told(settings: Settings, wanted: Wanted, *, as_json: bool = False) -> int:
    """Run the tests and print what they showed; the command's exit code. Raises TestsRefused."""
    code, found = tested(settings, wanted, stdout=sys.stderr if as_json else None)
    if code == NO_TESTS:
        fitting = f" whose name fits {wanted.keyword!r}" if wanted.keyword else ""
        cure = "Write one in tests/test_triggers.py: def test_it(circuit): ..."
        raise TestsRefused(f"There is no test{fitting} in {settings.folder}.", cure=cure)
    if as_json:
        print_json(found)
    elif code in (PASSED, FAILED):
        show(found, partial=wanted.partial)
    return exit_code(code, found, partial=wanted.partial)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tests shall run, whether each trigger is tried on 200 records, and whether models are recorded."""

    keyword: str | None = None
    arguments: tuple[str, ...] = ()
    bulk: bool = True
    record: bool = False

    @property
    def partial(self) -> bool:
        """Whether tests were chosen: what they leave out is not known then."""
        return self.keyword is not None or bool(self.arguments)


def tested(settings: Settings, wanted: Wanted, stdout: TextIO | None) -> tuple[int, dict[str, Any]]:
    """Run the tests: pytest's exit code, and the report."""
    with tempfile.TemporaryDirectory(prefix="circuit-test-") as reports:
        command = pytest_command(settings.folder, reports, wanted.keyword, wanted.arguments)
        if wanted.bulk and not wanted.partial:
            command.append("--circuit-bulk")
        if wanted.record:
            command.append("--circuit-record")
        code = run_pytest(command, settings, stdout=stdout)
        found = report(Path(reports), code, settings.test, partial=wanted.partial)
        return found["pytest"], found


def pytest_command(folder: Path, reports: str, keyword: str | None, arguments: Sequence[str]) -> list[str]:
    """pytest for the app in ``folder``, whatever project it lies in.

    Values are joined to their options: at first pytest does not know ours, and would take what follows for paths.
    """
    said = "".join(path.read_text("utf-8", "replace") for name in CONFIGURED if (path := folder / name).is_file())
    command = [sys.executable, "-m", "pytest", f"--rootdir={folder}", f"--circuit-folder={folder}"]
    command.append(f"--circuit-report={reports}")
    if importlib.util.find_spec("pytest_asyncio") is not None and LOOP_SCOPE not in said:
        command.append(f"--override-ini={LOOP_SCOPE}=function")  # it would warn in each app that says nothing
    command += [f"-k{keyword}"] if keyword else []
    chosen = any((folder / each.partition("::")[0]).exists() for each in arguments if not each.startswith("-"))
    if not chosen and "testpaths" not in said and (folder / TESTS).is_dir():
        command.append(TESTS)
    return [*command, *arguments]


def run_pytest(command: Sequence[str], settings: Settings, stdout: TextIO | None) -> int:
    """pytest's exit code. Interrupted, it ends its processes and its database, and we wait; a second signal kills it.

    Ctrl-C reaches it by the terminal. SIGTERM, of which it would just die, is passed on as an interrupt.
    """
    process = subprocess.Popen(command, cwd=settings.folder, stdout=stdout)
    told: list[int] = []

    def stop(number: int, _: object) -> None:
        told.append(number)
        if len(told) > 1:
            process.kill()
        elif number == signal.SIGTERM:
            process.send_signal(signal.SIGINT)

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code not in PYTEST_ENDED:
        stop_left_behind(settings.state)
    if told:
        return INTERRUPTED
    return FAILED if code == INTERRUPTED else code  # pytest says so of tests that cannot be imported, too


def exit_code(code: int, found: Mapping[str, Any], *, partial: bool) -> int:
    """The exit code of the command. Who has chosen tests is told of those only."""
    if code == PASSED and found["refusals"] and not partial:
        return FAILED
    return {PASSED: 0, INTERRUPTED: 130, MISUSED: 2}.get(code, 1)
