"""``circuit-script test``: the app's tests, in real children under their limits."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.config import Settings, load_settings
from circuit_script.errors import TestsRefused
from circuit_script.governor import amount
from circuit_script.testing.databases import stop_left_behind

NAME = "test"
EXAMPLES = (
    "Examples:  circuit-script test  ·  circuit-script test -k lead  ·  circuit-script test -- -x tests/test_chat.py"
    "  ·  circuit-script test --json | jq .handlers"
)
PASSED, FAILED, INTERRUPTED, MISUSED, NO_TESTS = 0, 1, 2, 4, 5  # pytest's exit codes
PYTEST_ENDED = range(6)  # others: it was killed
TESTS = "tests"
CONFIGURED = ("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "pyproject.toml", "tox.ini", "setup.cfg")
LOOP_SCOPE = "asyncio_default_fixture_loop_scope"
COLUMNS = ("handler", "runs", "records", "nearest to its limit")


def run(
    arguments: Annotated[list[str] | None, typer.Argument(help="For pytest, after --.", show_default=False)] = None,
    folder: Folder = None,
    keyword: Annotated[str | None, typer.Option("-k", help="Only tests whose names fit, as pytest's -k.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts; pytest then writes to standard error.")] = False,
) -> None:
    """Run the app's tests with pytest, each on a database of its own. Exit codes: 0 passed, 1 failed."""
    if importlib.util.find_spec("pytest") is None:
        raise TestsRefused("pytest is not installed.", cure="pip install 'circuit-script[test]'")
    settings = load_settings(app_folder(folder))
    with tempfile.TemporaryDirectory(prefix="circuit-test-") as reports:
        command = pytest_command(settings.folder, reports, keyword, arguments or [])
        code = run_pytest(command, settings, stdout=sys.stderr if as_json else None)
        handlers = used(Path(reports)) if code in (PASSED, FAILED) else {}
    if code == NO_TESTS:
        wanted = f" whose name fits {keyword!r}" if keyword else ""
        cure = "Write one in tests/test_triggers.py: def test_it(circuit): ..."
        raise TestsRefused(f"There is no test{wanted} in {settings.folder}.", cure=cure)
    if as_json:
        print_json({"passed": code == 0, "pytest": code, "handlers": handlers})
    elif handlers:
        show(handlers)
    raise typer.Exit(_exit_code(code))


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
    return INTERRUPTED if told else code


def used(reports: Path) -> dict[str, Any]:
    """How the tests used each handler: reports of all processes together."""
    found: dict[str, Any] = {}
    for path in sorted(reports.glob("*.json")):
        for name, use in json.loads(path.read_text("utf-8")).items():
            known = found.setdefault(name, {"runs": 0, "records": 0, "usage": {}, "ceilings": {}})
            for count in ("runs", "records"):
                known[count] += use[count]
            for kind in ("usage", "ceilings"):
                for limit, value in use[kind].items():
                    known[kind][limit] = max(value, known[kind].get(limit, 0))
    return dict(sorted(found.items()))


def show(handlers: Mapping[str, Any]) -> None:
    """The handlers as a table: the ones that no test ran stand out."""
    rows = [(name, use["runs"] or "none", use["records"], _nearest(use)) for name, use in handlers.items()]
    console().print(add_rows(table(*COLUMNS, right=("runs", "records")), rows))


def _nearest(use: Mapping[str, Any]) -> str:
    """The two limits of which the largest part was used."""
    parts = {name: use["usage"].get(name, 0) / ceiling for name, ceiling in use["ceilings"].items() if ceiling}
    most = sorted((name for name, part in parts.items() if part), key=lambda name: -parts[name])[:2]
    return ", ".join(
        f"{name} {amount(name, use['usage'][name])} of {amount(name, use['ceilings'][name])}" for name in most
    )


def _exit_code(code: int) -> int:
    return {PASSED: 0, INTERRUPTED: 130, MISUSED: 2}.get(code, 1)
