"""The seven steps from files to a release that is trusted: what each one runs, and when it counts as done.

Every step is a command that a person could type, run as a process of its own; what it prints as JSON is read.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import httpx

from circuit_script.cli.environments import environment_of_tests
from circuit_script.config import FILE, Settings
from circuit_script.releases.figures import Counts
from circuit_script.releases.watch import is_worse

STAGING, PRODUCTION = "staging", "production"
FIRST = "v1.0.0"
PATIENCE = 60.0  # seconds in which a gateway must answer
EVERY = 2.0  # seconds between two looks
INTERRUPTED = 130  # exit code
UNSEEN = "what is live there cannot be seen; why stands above"
SILENT = 3  # looks in a row that nobody answers: it is gone
_VERSION = re.compile(r"v1\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)


class Name(StrEnum):
    """The steps, in their order."""

    test = "test"
    tag = "tag"
    staging = "staging"
    smoke = "smoke"
    production = "production"
    watch = "watch"
    rollback = "rollback"


class State(StrEnum):
    """What became of a step."""

    open = "open"
    done = "done"
    skipped = "skipped"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """How a step ended. ``version`` is what the release is called, once that is known."""

    state: State
    detail: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is released, and where to. ``staging`` and ``production`` are names in ``[env]``, None where it lacks them:
    then there is no staging, and production is the app's own database. ``smoke`` is a command of the author's, and
    ``watched`` is how the watch ended, if it has."""

    settings: Settings
    version: str | None
    staging: str | None
    production: str | None
    url: str | None
    smoke: str | None
    minutes: float
    watched: State = State.open

    @property
    def folder(self) -> str:
        return str(self.settings.folder)


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``acts`` says that it changes something outside this folder, so that a person is asked first."""

    name: Name
    acts: bool
    command: Callable[[Plan], str]
    run: Callable[[Plan], Result]


def plan_of(
    settings: Settings,
    *,
    version: str | None,
    staging: str,
    production: str,
    url: str | None,
    smoke: str | None,
    minutes: float,
) -> Plan:
    """The plan, with the environments that circuit.toml really has."""
    return Plan(
        settings,
        version or tag_here(str(settings.folder)),
        staging if staging in settings.env else None,
        production if production in settings.env else None,
        url,
        smoke,
        minutes,
    )


# test --------------------------------------------------------------------------------------------


def _test(plan: Plan) -> Result:
    code, said = _verb(plan, "test", env=environment_of_tests(plan.settings))
    if said is None:
        return Result(State.failed, "it did not run; why stands above")
    if code:
        refusals = said.get("refusals") or ["a test has failed; alone: circuit-script test"]
        return Result(State.failed, " ".join(map(str, refusals)))
    total = (said.get("coverage") or {}).get("total")
    ran = sum(bool(used.get("runs")) for used in said.get("handlers", {}).values())
    covered = "" if total is None else f", {total:g} % of the lines"
    return Result(State.done, f"{ran} handler{'' if ran == 1 else 's'} ran{covered}")


# tag ---------------------------------------------------------------------------------------------


def _tag(plan: Plan) -> Result:
    if not _git(plan.folder, "rev-parse", "HEAD"):
        return Result(State.skipped, "no commit of git is here; the release is called what `deploy` calls it")
    if changed := _git(plan.folder, "status", "--porcelain", "--", "."):
        first = changed.splitlines()[0].strip().partition(" ")[2].strip()
        return Result(State.failed, f"{first} is not committed: a tag would be of other files. git commit, then again")
    here = tag_here(plan.folder)
    if here is not None and plan.version in (None, here):
        return Result(State.done, f"{here} is the tag of this commit", here)
    version = plan.version or next_version(plan.folder)
    if not _VERSION.fullmatch(version):
        return Result(State.failed, f"{version!r} is no version: call it like v1.4.0")
    ran = subprocess.run(
        ["git", "tag", "--annotate", version, "--message", f"release {version}"],
        cwd=plan.folder,
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        return Result(State.failed, f"git tag: {(ran.stderr or ran.stdout).strip()}")
    return Result(State.done, f"{version}; others see it after: git push origin {version}", version)


def tag_here(folder: str) -> str | None:
    """The highest v1.x.y of this commit."""
    return _highest(_git(folder, "tag", "--points-at", "HEAD"))


def next_version(folder: str) -> str:
    """The patch after the highest v1.x.y of any commit."""
    highest = _highest(_git(folder, "tag", "--list", "v1.*"))
    if highest is None:
        return FIRST
    stem, _, patch = highest.rpartition(".")
    return f"{stem}.{int(patch) + 1}"


def _highest(tags: str) -> str | None:
    found = [match for tag in tags.split() if (match := _VERSION.fullmatch(tag))]
    return max(found, key=lambda match: (int(match[1]), int(match[2])))[0] if found else None


def _git(folder: str, *arguments: str) -> str:
    """What it says, and nothing where it fails or is not installed."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


# staging, smoke, production ----------------------------------------------------------------------


def _staging(plan: Plan) -> Result:
    if plan.staging is None:
        return Result(State.skipped, f"{FILE} has no [env.{STAGING}]")
    return _deploy(plan, plan.staging)


def _production(plan: Plan) -> Result:
    return _deploy(plan, plan.production)


def _deploy(plan: Plan, env: str | None) -> Result:
    """The watch is a step of its own; workers watch in any case."""
    code, said = _verb(plan, *_deploying(plan, env))
    if said is None:
        return Result(State.failed, "it was not deployed; why stands above")
    if code or not said.get("live"):
        refused = said.get("refused") or {}
        why = " ".join(filter(None, (refused.get("why"), refused.get("cure")))) or "why stands above"
        return Result(State.failed, f"not live: {why}")
    return Result(State.done, f"{said['release']} is live", said["release"])


def _deploying(plan: Plan, env: str | None) -> list[str]:
    called = ["--version", plan.version] if plan.version else []
    return ["deploy", *_env(env), *called, "--detach", "--yes"]


def _smoke(plan: Plan) -> Result:
    if plan.staging is None:
        return Result(State.skipped, "there is no staging to try")
    url = plan.url or _url_of(plan.staging)
    if url is None:
        return Result(State.failed, f"where does its gateway answer? Say --url, or set {_variable(plan.staging)}")
    if why := _until_answers(url):
        return Result(State.failed, why)
    live = _live(_look(plan, plan.staging)).get("release")
    if plan.version is not None and live != plan.version:
        return Result(State.failed, f"{live or 'nothing'} is live there, not {plan.version}")
    if plan.smoke is None:
        return Result(State.done, f"{url} answers, {live} is live")
    ran = subprocess.run(plan.smoke, shell=True, cwd=plan.folder, env=os.environ | {"URL": url}, stdout=sys.stderr)
    if ran.returncode:
        return Result(State.failed, f"exit code {ran.returncode} of: {plan.smoke}")
    return Result(State.done, f"{url} answers, {live} is live, and {plan.smoke} succeeds")


def _until_answers(url: str) -> str:
    """Nothing once it is ready; else what it says instead."""
    deadline = time.monotonic() + PATIENCE
    while why := _silent(url):
        if time.monotonic() > deadline:
            return why
        time.sleep(EVERY)
    return ""


def _silent(url: str) -> str:
    """Why its gateway is not ready; nothing if it is."""
    try:
        status = httpx.get(f"{url.rstrip('/')}/readyz", timeout=10.0).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"nobody answers at {url}: {error}"
    return "" if status == 200 else f"{url}/readyz answers {status}"


def _url_of(env: str | None) -> str | None:
    return os.environ.get(_variable(env or PRODUCTION)) or None


def _variable(env: str) -> str:
    return f"{env.upper().replace('-', '_')}_URL"


# watch, rollback ---------------------------------------------------------------------------------


def _watch(plan: Plan) -> Result:
    """Until the workers have ended their watch: it stays live, and its gateway answers, where we know where. Where no
    worker watches, errors are held against those of the release before by the same measure."""
    url, silent, deadline = _url_of(plan.production), 0, time.monotonic() + plan.minutes * 60
    while True:
        found = _look(plan, plan.production)
        live = _live(found).get("release")
        if found is not None and plan.version not in (None, live):
            return Result(State.failed, _replaced(plan, found, live))
        said = UNSEEN if found is None else _silent(url) if url else ""
        silent = silent + 1 if said else 0
        if silent >= SILENT:
            return Result(State.failed, said)
        if found is not None and (time.monotonic() >= deadline or _over(found)):
            return _judged(plan, found)
        time.sleep(min(EVERY, max(0.0, deadline - time.monotonic())))


def _replaced(plan: Plan, found: Mapping[str, Any], live: str | None) -> str:
    why = found["moves"][0]["reason"] if found["moves"] else ""
    return f"{plan.version} was rolled back, {live or 'nothing'} is live{f': {why}' if why else ''}"


def _over(found: Mapping[str, Any]) -> bool:
    """Whether the workers have ended their watch."""
    if not found["moves"]:
        return False
    until = found["moves"][0]["watch_until"]
    return bool(found["moves"][0]["watched"]) or (
        until is not None and datetime.fromisoformat(until) <= datetime.now(UTC)
    )


def _judged(plan: Plan, found: Mapping[str, Any]) -> Result:
    """What its executions since it went live say of it, beside those of a day of the release before."""
    move: Mapping[str, Any] = next(iter(found["moves"]), {})
    new = _counts(plan, move.get("at"), move.get("release"))
    many = "" if new.executions == 1 else "s"
    said = f"{_live(found).get('release')} stayed live: {new.executions:,} execution{many}, {new.errors:,} with errors"
    if move.get("watched"):
        return Result(State.done, said)
    old = _counts(plan, None, move.get("before"))
    if is_worse(new, old):
        before = f"{old.errors:,} of {old.executions:,}"
        return Result(State.failed, f"{said}: over 0.1 % more than before ({before})")
    return Result(State.done, said)


def _counts(plan: Plan, since: str | None, release: int | None) -> Counts:
    """Executions and errors of a release, by its number."""
    found = _look(plan, plan.production, *(["--since", since] if since else []))
    for each in found["releases"] if found is not None else ():
        if each["id"] == release:
            return Counts(each["executions"], each["errors"])
    return Counts()


def _rollback(plan: Plan) -> Result:
    if plan.watched is State.done:
        return Result(State.skipped, "not needed")
    found = _look(plan, plan.production)
    if found is None:
        return Result(State.failed, UNSEEN)
    live = _live(found).get("release")
    if plan.version not in (None, live):
        return Result(State.done, f"{live or 'nothing'} is live: it was rolled back already")
    code, said = _verb(plan, "rollback", *_env(plan.production), "--yes")
    if code:
        return Result(State.failed, "it was not rolled back; why stands above")
    return Result(State.done, f"{said['release']} is live again, {said['live_after_s']:.2f} s after the command")


def _look(plan: Plan, env: str | None, *more: str) -> Mapping[str, Any] | None:
    """Its releases and moves, the latest first; None where they cannot be seen."""
    found: Mapping[str, Any] | None = _verb(plan, "releases", *_env(env), *more)[1]
    return found


def _live(found: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What is live, and nothing where nothing is."""
    return next((each for each in found["releases"] if each["live"]), {}) if found is not None else {}


def _env(name: str | None) -> list[str]:
    return ["--env", name] if name else []


def _verb(plan: Plan, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Run one verb of ours; its exit code, and what it says to scripts, None where it says nothing. What it says to
    people goes to people."""
    command = [sys.executable, "-P", "-m", "circuit_script.cli", *arguments, "--folder", plan.folder, "--json"]
    ran = subprocess.run(
        command, cwd=plan.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=env, check=False
    )
    if ran.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    try:
        return ran.returncode, json.loads(ran.stdout)
    except ValueError:  # it has said on standard error why
        return ran.returncode or 1, None


def _typed(*arguments: str) -> str:
    return " ".join(["circuit-script", *arguments])


STEPS: Sequence[Step] = (
    Step(Name.test, False, lambda plan: _typed("test"), _test),
    Step(Name.tag, True, lambda plan: f"git tag --annotate {plan.version or next_version(plan.folder)}", _tag),
    Step(Name.staging, True, lambda plan: _typed(*_deploying(plan, plan.staging or STAGING)), _staging),
    Step(
        Name.smoke,
        False,
        lambda plan: f"GET {plan.url or _url_of(plan.staging or STAGING) or '$STAGING_URL'}/readyz",
        _smoke,
    ),
    Step(Name.production, True, lambda plan: _typed(*_deploying(plan, plan.production)), _production),
    Step(
        Name.watch,
        False,
        lambda plan: f"{_typed('releases', *_env(plan.production))}, for {plan.minutes:g} minutes",
        _watch,
    ),
    Step(
        Name.rollback,
        True,
        lambda plan: f"{_typed('rollback', *_env(plan.production), '--yes')}, if errors exceed 0.1 % over before",
        _rollback,
    ),
)
