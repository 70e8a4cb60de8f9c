"""``circuit-script test``: the app's tests, in real children under their limits."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.config import load_settings
from circuit_script.errors import StartError
from circuit_script.governor import amount

NAME = "test"
EXAMPLES = (
    "Examples:  circuit-script test  ·  circuit-script test -k lead  ·  circuit-script test -- -x tests/test_chat.py"
    "  ·  circuit-script test --json | jq .handlers"
)
NO_TESTS = 5  # pytest's exit code
COLUMNS = ("handler", "runs", "records", "nearest to its limit")


def run(
    arguments: Annotated[list[str] | None, typer.Argument(help="For pytest, after --.", show_default=False)] = None,
    folder: Annotated[Path, typer.Option(help="The app's folder.")] = Path(),
    keyword: Annotated[str | None, typer.Option("-k", help="Only tests whose names fit, as pytest's -k.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts; pytest then writes to standard error.")] = False,
) -> None:
    """Run the app's tests with pytest, each on a database of its own. Exit codes: 0 passed, 1 failed."""
    if importlib.util.find_spec("pytest") is None:
        raise StartError("pytest is not installed.", cure="pip install 'circuit-script[test]'", page="testing")
    settings = load_settings(folder)
    command = [sys.executable, "-m", "pytest", "--rootdir", str(settings.folder)]
    command += ["--circuit-folder", str(settings.folder)]
    command += [*(["-k", keyword] if keyword else []), *(arguments or [])]
    with tempfile.TemporaryDirectory(prefix="circuit-test-") as reports:
        command += ["--circuit-report", reports]
        code = subprocess.run(command, cwd=settings.folder, stdout=sys.stderr if as_json else None).returncode
        handlers = used(Path(reports))
    if code == NO_TESTS:
        wanted = f" whose name fits {keyword!r}" if keyword else ""
        cure = "Write one in tests/test_triggers.py: def test_it(circuit): ..."
        raise StartError(f"There is no test{wanted} in {settings.folder}.", cure=cure, page="testing")
    if as_json:
        print_json({"passed": code == 0, "pytest": code, "handlers": handlers})
    elif handlers:
        show(handlers)
    raise typer.Exit(_exit_code(code))


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
    match code:
        case 0 | 1:
            return code
        case 2:
            return 130
        case 4:
            return 2
        case _:
            return 1
