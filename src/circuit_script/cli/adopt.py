"""``circuit-script adopt``: make an existing script run as a governed job, by the clock."""

from __future__ import annotations

import ast
import json
import keyword
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import print_json
from circuit_script.config import load_settings
from circuit_script.errors import ScaffoldRefused
from circuit_script.execution.timing import WrongTime, checked_cron, checked_zone, duration_shown, seconds_of

NAME = "adopt"
EXAMPLES = (
    "Examples:  circuit-script adopt campaign.py --every 5m  ·  "
    'circuit-script adopt ~/bin/report.py --cron "0 7 * * MON-FRI" --timezone Europe/Berlin --name morning_report'
)
SCRIPTS = "scripts"
LIMITS = {"cpu_time": 60, "callouts": 500, "memory": 256 * 1024 * 1024}

JOB = '''"""{script} as a governed job. The script itself is in {place}: change it there."""

from pathlib import Path

from circuit_script import run_script, scheduled

SCRIPT = Path(__file__).parents[{up}] / {parts}


@scheduled({when}, limits={limits})
def {name}(context):
    """Run {script} as `python {script}` would; what it prints is logged, and an exit code other than 0 is a failure."""
    run_script({call})
'''


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written, all of it below ``folder``. ``copied`` is where the script goes, unless it is there."""

    folder: Path
    name: str
    script: Path
    place: Path
    module: Path
    package: Path | None
    text: str


def run(
    script: Annotated[Path, typer.Argument(help="The Python script.")],
    every: Annotated[str | None, typer.Option(help="Run it each time that so much has passed: 5m, 1h, 1d.")] = None,
    cron: Annotated[str | None, typer.Option(help="Run it at these times: minute hour day month weekday.")] = None,
    timezone: Annotated[str, typer.Option(help="The time zone of --cron.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="The job's name, if not the script's.")] = None,
    args: Annotated[str, typer.Option(help="The script's own command-line arguments.")] = "",
    timeout: Annotated[str, typer.Option(help="The longest that it may run.")] = "5m",
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Make an existing script run as a governed job, by the clock.

    The script is copied into the app's scripts/, unless it is in the app already; a small job beside the app's triggers
    runs it. Nothing that is there is overwritten.
    """
    settings = load_settings(app_folder(folder))
    plan = _plan(settings.folder, settings.app, script, _when(every, cron, timezone), name, args, timeout)
    written = _write(plan)
    if as_json:
        print_json({"name": plan.name, "files": written, "job": plan.text})
        return
    print("\n".join(f"wrote {each}" for each in written))
    print(f"\n{plan.text}\nnext:")
    print("  circuit-script dev                run it; what you save is live at once")
    print(f"  circuit-script jobs run {plan.name:<9} run it now, besides its schedule")
    print("  circuit-script jobs               when it runs next, and how it ended last")


def _when(every: str | None, cron: str | None, timezone: str) -> str:
    """The arguments of @scheduled. Raises ScaffoldRefused."""
    if (every is None) == (cron is None):
        raise _refused("Say when it runs: --every or --cron, and not both.", "For example: --every 5m.")
    try:
        if every is not None:
            return f'every="{duration_shown(seconds_of(every, "every"))}"'
        zone = checked_zone(timezone)
        return f'"{checked_cron(cron)}"' + ("" if zone == "UTC" else f', timezone="{zone}"')
    except WrongTime as error:
        raise _refused(error.wrong[:1].upper() + error.wrong[1:], error.cure) from None


def _plan(folder: Path, app: str, script: Path, when: str, name: str | None, args: str, timeout: str) -> Plan:
    script = script.expanduser().resolve()
    if not script.is_file():
        raise _refused(f"There is no script {script}.", "Give the path of a Python file.")
    try:
        ast.parse(script.read_bytes(), str(script))
    except (SyntaxError, ValueError) as error:
        raise _refused(f"{script} is no Python that this interpreter reads: {error}.", "Mend it first.") from None
    job = name or re.sub(r"\W+", "_", script.stem).strip("_").lower()
    if not job.isidentifier() or keyword.iskeyword(job):
        raise _refused(f"{job!r} is no name for a job.", "Give one: --name nightly_report.")
    package = folder / app.replace(".", "/")
    if not package.is_dir():
        raise _refused(
            f"The app is the single file {package}.py, so that there is no place for another.",
            f"Make it a package: mkdir {app} && mv {app}.py {app}/__init__.py.",
        )
    inside = script.is_relative_to(folder) and not script.is_relative_to(package)
    place = script if inside else folder / SCRIPTS / script.name
    jobs = package if (package / "jobs.py").exists() else package / "jobs"
    module = jobs / f"{job}.py"
    limits = {"wall_time": _seconds(timeout), **LIMITS}
    given = ", ".join(("SCRIPT", *map(_quoted, shlex.split(args))))
    text = JOB.format(
        script=script.name,
        place=place.relative_to(folder),
        up=len(module.relative_to(folder).parts) - 1,
        parts=" / ".join(map(_quoted, place.relative_to(folder).parts)),
        when=when,
        limits="{" + ", ".join(f'"{key}": {value}' for key, value in limits.items()) + "}",
        name=job,
        call=given,
    )
    return Plan(folder, job, script, place, module, None if jobs == package else jobs / "__init__.py", text)


def _quoted(text: str) -> str:
    """As Python reads it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _seconds(timeout: str) -> int:
    try:
        return max(1, round(seconds_of(timeout, "timeout")))
    except WrongTime as error:
        raise _refused(f"--{error.wrong}", error.cure) from None


def _write(plan: Plan) -> list[str]:
    """Write it, or nothing where something is there already; what was written, in words."""
    copies = plan.place != plan.script
    taken = [each for each in (plan.module, *([plan.place] if copies else [])) if each.exists()]
    if taken:
        raise _refused(f"{taken[0]} is there already.", "Give another --name, or move it away; nothing was changed.")
    try:
        said = []
        plan.module.parent.mkdir(parents=True, exist_ok=True)
        if plan.package is not None and not plan.package.exists():
            plan.package.write_text("", "utf-8")
            said.append(str(plan.package.relative_to(plan.folder)))
        if copies:
            plan.place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(plan.script, plan.place)
            said.append(f"{plan.place.relative_to(plan.folder)} (a copy of {plan.script})")
        plan.module.write_text(plan.text, "utf-8")
        return [*said, str(plan.module.relative_to(plan.folder))]
    except OSError as error:
        raise ScaffoldRefused(
            f"{error.filename}: {error.strerror}.",
            cure="Let this user write to the app's folder.",
            page="folder-not-writable",
        ) from None


def _refused(wrong: str, cure: str) -> ScaffoldRefused:
    return ScaffoldRefused(wrong, cure=cure, page="adopt")
