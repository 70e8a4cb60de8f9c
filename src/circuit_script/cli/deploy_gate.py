"""What keeps an app from going live: decisions about what `circuit-script test` reports, and about an import.

Each returns what the step has to say when the app may go on, and raises DeployRefused, with what to do, when not.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from platform import python_version
from typing import Any

from circuit_script.config import FILE
from circuit_script.errors import DeployRefused
from circuit_script.testing.report import CUT

NEAR = 0.8  # of a limit
VALID = timedelta(hours=24)  # for which a validation counts
VERSION = re.compile(r"v(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)
NO_TESTS = 5  # pytest's exit code
SHOWN = 5
ALONE = (
    "Mend it; look at it alone: circuit-script test. If it passes there: here it has none of the shell's secrets; "
    "[deploy] test_environment names variables that it needs."
)
_PLACE = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): (?P<said>.*)$", re.DOTALL)
_MISSING = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_KEY = re.compile(r"KeyError: '(\w+)'")
_FILE = re.compile(r"FileNotFoundError: .*: '([^']+)'")
_SETTING = re.compile(r"CIRCUIT_((TEST|DEPLOY|WORKER)__|APP$)", re.IGNORECASE)
_LOOP = re.compile(r"partially initialized module|circular import")


def check_version(name: str | None) -> None:
    """Whether a release may be called that."""
    if name is not None and not VERSION.fullmatch(name):
        cure = "Call it like v1.4.0, or leave --version out: it is the next one."
        raise DeployRefused(f"{name!r} is no version of an app.", cure=cure)


def check_tests(report: Mapping[str, Any]) -> str:
    """Every test has passed, and each handler's run of a whole batch."""
    if report.get("pytest") == NO_TESTS:
        raise DeployRefused("The app has no tests.", cure="Write one in tests/: circuit-script explain testing.")
    if report.get("cut"):
        detail, _, cure = CUT.partition(". ")
        raise DeployRefused(f"{detail}.", cure=cure)
    if report.get("pytest", 1) != 0:
        raise DeployRefused("A test has failed.", cure=ALONE)
    bulk = _section(report, "bulk")
    failed = [f"{name}: {found.get('reason') or 'failed'}" for name, found in bulk.items() if not found["succeeded"]]
    if failed:
        raise DeployRefused(
            f"A batch of {_most(bulk)} records is too much for {_list(failed)}.",
            cure="Do in one call what is done for each record, or lower the handler's batch_size.",
        )
    ran = sum(bool(used.get("runs")) for used in report.get("handlers", {}).values())
    handlers = f"{ran} handler{'' if ran == 1 else 's'} ran"
    return f"passed, {handlers}" + (f", each with {_most(bulk)} records" if bulk else "")


def check_coverage(report: Mapping[str, Any], enough: float) -> str:
    """``enough`` percent of the app's lines ran, in all and of each handler."""
    coverage = _section(report, "coverage")
    total = coverage.get("total")
    if total is None:
        raise DeployRefused(
            "Coverage was not measured.", cure="See what circuit-script test says, and [test] omit in circuit.toml."
        )
    low = [(name, part) for name, part in (coverage.get("handlers") or {}).items() if part is None or part < enough]
    if total < enough or low:
        said = [f"all: {_percent(total)}"] if total < enough else []
        said += [f"{name}: {'not run' if part is None else _percent(part)}" for name, part in low]
        files = sorted((coverage.get("files") or {}).items(), key=lambda each: each[1] or 0)
        least = f" Least in {files[0][0]} ({_percent(files[0][1] or 0)})." if files else ""
        raise DeployRefused(
            f"Tests run less than {enough:g} % of the lines of {_list(said)}.{least}",
            cure="Write tests for what they never run: circuit-script test shows it.",
        )
    return f"{_percent(total)} of the lines"


def check_limits(report: Mapping[str, Any]) -> str:
    """No handler came near a limit in its tests, but where its author allows it."""
    if "limits" not in report:
        raise DeployRefused(
            "Limits were not measured.", cure="Run the circuit-script of this environment: see `which`."
        )
    near = [each for each in report["limits"] if each["share"] > NEAR]
    refused = [each for each in near if not each.get("allowed")]
    if refused:
        said = [
            f"{_limit(each)} {each['used']:g} of {each['ceiling']:g}, {100 * each['share']:.0f} %" for each in refused
        ]
        names = ", ".join(f'"{_limit(each)}"' for each in refused[:SHOWN])
        raise DeployRefused(
            f"In its tests more than {_percent(100 * NEAR)} of a limit is used: {_list(said)}.",
            cure=f"Use less, raise the limit, or allow it in circuit.toml: [test] allow_limits = [{names}].",
        )
    if near:
        return f"{len(near)} near to a limit, which circuit.toml allows"
    return f"none over {_percent(100 * NEAR)}"


def check_refusals(report: Mapping[str, Any]) -> None:
    """Whatever else the report holds against it, in its words."""
    if refusals := [str(each) for each in report.get("refusals", ())]:
        raise DeployRefused(" ".join(refusals[:SHOWN]), cure="" if len(refusals) <= SHOWN else "There are more.")
    if report.get("passed") is False:
        raise DeployRefused("circuit-script test does not pass.", cure="Run it, and do what it says.")


def refused_import(detail: str, cure: str, folder: Path, author: Path) -> DeployRefused:
    """Why a clean copy in ``folder`` of the app in ``author`` does not import, in names of the author's files."""
    detail = detail.replace(f"{folder}/", "").replace(str(folder), ".")
    cure = cure.replace(f"{folder}/", "").replace(str(folder), ".").replace("and start again", "and deploy again")
    detail = detail if detail.endswith(".") else f"{detail}."
    if _LOOP.search(detail):
        loop = " → ".join(find_loop(folder))
        cure = "Move what both need into a third module, or import it inside the function that uses it."
        return DeployRefused(f"{detail}{f' They import each other: {loop}.' if loop else ''}", cure=cure)
    if missing := _MISSING.search(detail):
        cure = _cure_of_missing(missing[1], author)
    elif (secret := _KEY.search(detail)) and "environ" in _line_of(detail, folder):
        cure = f'An app sees none of the shell\'s variables. Name it where it is sent: secret("{secret[1]}").'
    elif (file := _FILE.search(detail)) and (author / file[1]).is_file():
        cure = f"{file[1]} is no part of a release: see `circuit-script explain deploy` for what is."
    return DeployRefused(detail, cure=cure)


def _line_of(detail: str, folder: Path) -> str:
    """The author's line that an import failed at."""
    if (place := _PLACE.match(detail)) is None:
        return ""
    try:
        return (folder / place["file"]).read_text("utf-8", "replace").splitlines()[int(place["line"]) - 1]
    except (OSError, IndexError):
        return ""


def check_import(warnings: Sequence[str], places: Sequence[str], seconds: float, most: float) -> str:
    """What importing left behind, and how long it took. ``places`` say where, each with file and line."""
    where = f" ({'; '.join(places)})" if places else ""
    if seconds > most:
        raise DeployRefused(
            f"Importing the app takes {seconds:.1f} s{where}; at most {most:g} s is allowed, as workers wait for it.",
            cure="Move slow work (models, requests, large files) from the top of modules into @on_child_start.",
        )
    if warnings:
        said, _, cure = warnings[0].partition(": ")
        raise DeployRefused(f"{said[:1].upper()}{said[1:]}{where}: {cure.partition('. ')[0]}.", cure=_after(cure))
    return f"{seconds:.1f} s in a clean copy"


def check_unchanged(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """What was tested is what was packed."""
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise DeployRefused(
            f"Changed while it was tested and packed: {_list(changed)}.",
            cure="Deploy again when nothing writes there; what tests write belongs into tmp_path.",
        )


def check_sensitive(found: Sequence[tuple[str, str]]) -> None:
    """Nothing that is packed is a secret, or stands outside of the app. ``found`` are files, each with why."""
    if not found:
        return
    names = ", ".join(f'"{name}"' for name, _ in found[:SHOWN])
    raise DeployRefused(
        f"All who deploy can read what is packed: {_list([f'{name} ({why})' for name, why in found])}.",
        cure="Keep secrets where workers run (circuit-script explain secrets), and let a key that was committed be "
        f"replaced; if it is none: [deploy] allow_files = [{names}] in circuit.toml.",
    )


def ground(folder: Path) -> dict[str, str]:
    """What else a validation rests on: this platform, this Python, and the settings of the app, also those of the
    environment that say what a gate lets pass."""
    file = folder / FILE
    settings = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""
    said = {name.upper(): value for name, value in sorted(os.environ.items()) if _SETTING.match(name)}
    return {"platform": version("circuit-script"), "Python": python_version(), FILE: settings, **said}


def check_validated(report: Mapping[str, Any], now: datetime, ground: Mapping[str, str]) -> str:
    """A release that was validated lately and on the same ``ground``, as its report says."""
    said = (report.get("deploy") or {}).get("validated_at")
    if said is None:
        raise DeployRefused(
            "These files were never validated.", cure="First: circuit-script deploy --validate-only. Then --quick."
        )
    age = now - datetime.fromisoformat(said)
    if age > VALID:
        hours, counts = (each.total_seconds() / 3600 for each in (age, VALID))
        raise DeployRefused(
            f"These files were validated {hours:,.0f} hours ago, and that counts for {counts:.0f}.",
            cure="Once more: circuit-script deploy --validate-only.",
        )
    before = (report.get("deploy") or {}).get("ground") or {}
    names = dict.fromkeys([*ground, *before])
    if changed := [name for name in names if before.get(name) != ground.get(name)]:
        unset = "not set"
        what = [
            name if name == FILE else f"{name} ({ground.get(name, unset)}, was {before.get(name, unset)})"
            for name in changed
        ]
        raise DeployRefused(
            f"Since these files were validated, this has changed: {_list(what)}.",
            cure="Once more: circuit-script deploy --validate-only.",
        )
    return f"{age.total_seconds() / 60:,.0f} min ago"


def validated(
    report: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], ground: Mapping[str, str]
) -> dict[str, Any]:
    """The report that a release keeps: what the tests said, and that it has passed every gate, when, and on what."""
    when = datetime.now(UTC).isoformat()
    return {**report, "deploy": {"validated_at": when, "ground": dict(ground), "steps": list(steps)}}


def find_loop(folder: Path) -> list[str]:
    """Modules below ``folder`` that import each other while they are imported: file and line of each import, around."""
    files = {_module(path.relative_to(folder)): path for path in sorted(folder.rglob("*.py"))}
    edges = {name: list(_imports(name, path, files)) for name, path in files.items()}
    for start in edges:
        if found := _around(start, edges):
            return [f"{files[name].relative_to(folder)}:{line}" for name, line in found]
    return []


def _around(start: str, edges: Mapping[str, Sequence[tuple[str, int]]]) -> list[tuple[str, int]]:
    """The shortest way from a module back to it: each module with the line that leads on."""
    ways: list[tuple[str, list[tuple[str, int]]]] = [(start, [])]
    seen = set()
    for here, way in ways:  # it grows
        for there, line in edges.get(here, ()):
            step = [*way, (here, line)]
            if there == start and here != start:
                return step
            if there not in seen:
                seen.add(there)
                ways.append((there, step))
    return []


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    """The app's modules that this one imports at its top, each with the line."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((each.name, node.lineno) for each in node.names if each.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = [f"{base}.{each.name}" for each in node.names if f"{base}.{each.name}" in known]
            yield from ((each, node.lineno) for each in (inner or ([base] if base in known else [])))


def _cure_of_missing(module: str, author: Path) -> str:
    """What to do about a module that the clean copy does not find."""
    top = module.partition(".")[0]
    if (author / top).exists() or (author / f"{top}.py").exists():
        return f"{top} stands in the app's folder, but no part of a release does: see `circuit-script explain deploy`."
    try:
        package = packages_distributions().get(top, [top])[0]
        pin = f"{package}=={version(package)}"
    except PackageNotFoundError:
        pin = f"{top}==VERSION"
    return f"Write {pin} to requirements.txt, and install it here, too: pip install -r requirements.txt."


def _limit(near: Mapping[str, Any]) -> str:
    return f"{near['handler']}.{near['limit']}"


def _section(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = report.get(name)
    return found if isinstance(found, Mapping) else {}


def _most(bulk: Mapping[str, Any]) -> int:
    return max((found.get("records", 0) for found in bulk.values()), default=0)


def _list(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return f"{', '.join(parts[:SHOWN])}{more}"


def _percent(value: float) -> str:
    return f"{int(value * 10) / 10:g} %"  # never rounded up to what would be enough


def _after(cure: str) -> str:
    return cure.partition(". ")[2] or cure
