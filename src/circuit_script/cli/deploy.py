"""``circuit-script deploy``: the app as it is now, through every gate, and then live on every worker."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from circuit_script.cli import deploy_gate as gate
from circuit_script.cli.app_database import do
from circuit_script.cli.deploy_import import Packed, hashes, import_copy, pack_files
from circuit_script.cli.deploy_requirements import differing, pinned
from circuit_script.cli.deploy_shadow import Asked, asked_for, open_it
from circuit_script.cli.deploy_steps import Step, Steps
from circuit_script.cli.deploy_tests import report_of_tests
from circuit_script.cli.deploy_watch import (
    NOBODY,
    Watched,
    check_still_live,
    counted,
    moved,
    through_restarts,
    warm,
    watch,
)
from circuit_script.cli.environments import Environment
from circuit_script.cli.folder import Folder, app_folder
from circuit_script.cli.output import console, print_json
from circuit_script.cli.places import Going, Insecure, Place, Reach, To, reach_of
from circuit_script.config import Settings, load_settings
from circuit_script.errors import (
    CircuitError,
    DatabaseUnavailable,
    DeployRefused,
    ElsewhereAway,
    ReleaseRefused,
    ReleaseUnknown,
)
from circuit_script.jobs.outside import whoever
from circuit_script.releases import content_hash
from circuit_script.releases.moving import DEPLOY, NOTHING, Move
from circuit_script.releases.shadows import Shadow
from circuit_script.releases.store import NewRelease, ReleaseRow
from circuit_script.settings_spans import seconds_of

NAME = "deploy"
EXAMPLES = (
    'Examples:  circuit-script deploy --message "scores by plan"  ·  circuit-script deploy --env production --yes  ·  '
    "circuit-script deploy --validate-only  ·  circuit-script deploy --quick --yes  ·  "
    "circuit-script deploy --shadow --for 1h  ·  circuit-script deploy --to https://ops.example.com"
)
ROLLED_BACK = 1  # exit code


@dataclass(slots=True)
class _Deploy:
    """What is asked, and how far it has come."""

    settings: Settings
    reach: Reach
    steps: Steps
    env: str | None
    to: str | None
    by: str
    message: str
    version: str | None
    watch: timedelta | None
    before: ReleaseRow | None = None
    last: int = 0  # move; 0 where none ever was: until then workers run what their folder holds
    release: ReleaseRow | None = None
    move: Move | None = None
    watched: Watched | None = None
    shadow: Shadow | None = None

    @property
    def deployed(self) -> bool:
        """Whether something was, here."""
        return self.last > 0

    @property
    def is_live(self) -> bool:
        """Whether its files were live before, and by a move."""
        return bool(self.deployed and self.before and self.release and self.before.id == self.release.id)


def run(
    folder: Folder = None,
    env: Environment = None,
    to: To = None,
    insecure: Insecure = False,
    message: Annotated[str, typer.Option("--message", "-m", help="What is new; it is shown with the release.")] = "",
    version: Annotated[str | None, typer.Option(help="Its version, like v1.4.0; the next one if not said.")] = None,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="All gates, and keep it; not live.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Live at once: the same files passed within 24 h.")] = False,
    watched: Annotated[str | None, typer.Option("--watch", help="How long: 10m, 1h; 0 for not at all.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave the watch to the workers.")] = False,
    shadow: Annotated[bool, typer.Option("--shadow", help="Not live: beside it, compared on live events.")] = False,
    span: Annotated[
        str | None, typer.Option("--for", help="How long it is compared: 30m, 1h; else till stopped.")
    ] = None,
    sample: Annotated[str | None, typer.Option(help="Of how many live executions: 20%; [shadow] sample.")] = None,
    promote_below: Annotated[
        str | None, typer.Option("--promote-below", help="Live by itself where at most 0.1% of records differ.")
    ] = None,
    least: Annotated[int, typer.Option(min=1, help="Records that are compared before that.")] = 100,
    by: Annotated[str | None, typer.Option(help="Who deploys; your login where nothing is said.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts; the steps go to standard error.")] = False,
) -> None:
    """Test the app, make a release of it, and take it live on every worker. Exit codes: 0 live, 1 refused or rolled
    back. What was live goes on until the new release is ready everywhere."""
    if quick and (validate_only or version is not None):
        raise typer.BadParameter("--quick takes what was validated as it is: no --validate-only, no --version")
    if to is not None and (shadow or by is not None):
        raise typer.BadParameter("--shadow needs the database, --by is whose token it is", param_hint="--to")
    with _told_before(env, to, as_json=as_json):
        settings, reach = reach_of(load_settings(app_folder(folder)), NAME, env, to, insecure)
        watching = _watch(settings, watched)
        asked = asked_for(settings, shadow, span, sample, promote_below, least)
        if asked is not None and (validate_only or watched is not None):
            raise typer.BadParameter("--shadow takes nothing live: no --watch, no --validate-only")
        if not (yes or validate_only or shadow or sys.stdin.isatty()):
            raise DeployRefused("Nobody is there to ask.", cure="Add --yes, or --validate-only to try it only.")
    steps = Steps(console(stderr=as_json))
    deploy = _Deploy(settings, reach, steps, env, to, by or whoever(), message.strip(), version, watching)
    refused: CircuitError | None = None
    try:
        _prepare(deploy, quick=quick)
        if asked is not None:
            _compare(deploy, asked)
        elif not validate_only and (yes or _agreed(deploy)):
            _take_live(deploy)
            _watch_it(deploy, detach=detach)
    except CircuitError as error:
        refused = error
        raise
    finally:
        if as_json:
            print_json(_told(deploy, refused))
    _tell_end(deploy, validate_only=validate_only, quiet=as_json)
    if deploy.watched is not None and deploy.watched.rolled_back:
        raise typer.Exit(ROLLED_BACK)


@contextlib.contextmanager
def _told_before(env: str | None, to: str | None, *, as_json: bool) -> Iterator[None]:
    """What is refused before the first step is JSON, too, of the same form."""
    try:
        yield
    except CircuitError as error:
        if as_json:
            nothing: dict[str, Any] = dict.fromkeys(("release", "digest", "before", "watched"))
            print_json({
                "environment": env, "to": to, **nothing, "live": False, "shadow": False, "steps": [],
                "refused": _why(error),
            })  # fmt: skip
        raise


def _why(error: CircuitError) -> dict[str, str]:
    return {"why": error.detail, "cure": error.cure, "page": error.page}


def _watch(settings: Settings, said: str | None) -> timedelta | None:
    if said == "0":
        return None
    try:
        return timedelta(seconds=seconds_of(said or settings.deploy.watch))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--watch") from None


def _prepare(deploy: _Deploy, *, quick: bool) -> None:
    """A release that has passed every gate, kept in the environment's database."""
    with deploy.steps.step("environment") as step:
        gate.check_version(deploy.version)
        folder = deploy.settings.folder
        known, workers = deploy.reach.ask(lambda place: _look(place, deploy))
        live = "nothing is live" if deploy.before is None else f"{deploy.before.name} is live"
        step.detail = f"{deploy.reach.name}: {live}, {workers} worker{'' if workers == 1 else 's'}"
        if known is not None and known.digest != content_hash(folder):
            cure = "Choose another, or leave --version out: it is the next one."
            raise DeployRefused(f"{deploy.version} is taken by other files.", cure=cure)
    if not quick:
        _validate(deploy)
        return
    with deploy.steps.step("validated") as step:
        release = deploy.reach.ask(lambda place: _known(place, content_hash(folder)))
        step.detail = f"{release.name}, {gate.check_validated(release.report, datetime.now(UTC), gate.ground(folder))}"
    deploy.release = release


def _validate(deploy: _Deploy) -> None:
    """Every gate, the quick ones first; the release is kept at the end."""
    settings, steps = deploy.settings, deploy.steps
    ground = gate.ground(settings.folder)
    with steps.step("requirements") as step:
        requirements = pinned(settings.folder)
        count = requirements.count("\n")
        step.detail = f"{count} pinned" if count else "none besides the platform's"
        if others := differing(requirements):
            step.detail += f"; installed here, and tested with: {', '.join(others)}"
    with steps.step("pack") as step:
        packed = pack_files(settings.folder, settings.deploy.allow_files)
        step.detail = f"{len(packed.files)} files, {len(packed.source) / 1000:,.0f} KB, {packed.digest[:12]}"
    with steps.step("import") as step:
        manifest, said = import_copy(settings, packed)
        step.detail = f"{len(manifest.handlers)} handler{'' if len(manifest.handlers) == 1 else 's'}, {said}"
    report = _tested(settings, steps, packed)
    with steps.step("release") as step:
        new = NewRelease(
            digest=packed.digest,
            source=packed.source,
            handlers=manifest.handlers,
            version=deploy.version,
            author=deploy.by,
            message=deploy.message,
            requirements=requirements,
            report=gate.validated(report, steps.told[:-1], ground),
        )
        deploy.release = through_restarts(lambda: deploy.reach.ask(lambda place: place.keep(new)), step)
        step.detail = f"{deploy.release.name} is kept"


def _tested(settings: Settings, steps: Steps, packed: Packed) -> Mapping[str, Any]:
    with steps.step("tests") as step:
        step.now("circuit-script test")
        report, said = report_of_tests(settings)
        try:
            step.detail = gate.check_tests(report)
        except DeployRefused:
            steps.out.print(said, markup=False, style="dim")
            raise
    with steps.step("coverage") as step:
        step.detail = gate.check_coverage(report, settings.test.coverage)
    with steps.step("limits") as step:
        step.detail = gate.check_limits(report)
        gate.check_refusals(report)
    with steps.step("unchanged") as step:
        gate.check_unchanged(packed.files, hashes(settings.folder))
        step.detail = "the files are those that were tested"
    return report


def _take_live(deploy: _Deploy) -> None:
    release, steps = deploy.release, deploy.steps
    assert release is not None
    with steps.step("warm") as warming:
        patience = deploy.settings.deploy.warm_seconds
        warming.detail = through_restarts(
            lambda: deploy.reach.ask(lambda place: warm(place, release, patience, warming)), warming
        )
    with steps.step("live") as step:
        if deploy.is_live:
            deploy.reach.ask(lambda place: check_still_live(place, release))
            step.detail = f"{release.name} was live already"
            return
        move = deploy.move = _go(deploy, release, None if warming.detail == NOBODY else deploy.watch, step)
        step.detail = f"{release.name} since {move.at.astimezone():%H:%M:%S}"


def _go(deploy: _Deploy, release: ReleaseRow, watch: timedelta | None, step: Step) -> Move:
    expected = deploy.before.id if deploy.deployed and deploy.before is not None else NOTHING

    going = Going(DEPLOY, deploy.by, expected, deploy.message, watch)

    def go(place: Place) -> Awaitable[Move]:
        return place.go_live(release, going)

    def gone() -> Move | None:
        return through_restarts(lambda: deploy.reach.ask(lambda place: moved(place, release, deploy.last)), step)

    try:
        return deploy.reach.ask(go)
    except (DatabaseUnavailable, ElsewhereAway):  # its answer may have been lost, and not the move
        if found := gone():
            return found
    try:
        return deploy.reach.ask(go)
    except ReleaseRefused:  # by the first one, which was still on its way
        if found := gone():
            return found
        raise


def _compare(deploy: _Deploy, asked: Asked) -> None:
    release = deploy.release
    assert release is not None
    with deploy.steps.step("shadow") as step:
        deploy.shadow = do(
            deploy.settings,
            NAME,
            lambda connection: open_it(
                connection,
                release,
                asked,
                by=deploy.by,
                message=deploy.message,
                patience=deploy.settings.deploy.warm_seconds,
                step=step,
            ),
        )


def _watch_it(deploy: _Deploy, *, detach: bool) -> None:
    """Until the watch is over, or somebody presses Ctrl-C: the workers watch in any case."""
    move = deploy.move
    if move is None or move.watch_until is None:
        return
    with deploy.steps.step("watch") as step:
        if detach:
            step.detail, step.outcome = "left to the workers", "left"
            return
        try:
            deploy.watched = through_restarts(lambda: deploy.reach.ask(lambda place: watch(place, move, step)), step)
        except KeyboardInterrupt:
            step.detail, step.outcome = "left to the workers", "left"
            return
        step.detail = counted(deploy.watched.counts)
        if came := deploy.watched.next:
            what = "rolled back" if deploy.watched.rolled_back else f"{came.kind} by {came.by}"
            step.detail += f"; {what}: {came.version or came.release} is live. {came.reason}".rstrip()
            step.outcome = "left"


async def _look(place: Place, deploy: _Deploy) -> tuple[ReleaseRow | None, int]:
    """What is live; what has the version that is asked for, and how many workers there are."""
    found = await place.standing()
    deploy.before, deploy.last = found.live, found.last
    if deploy.version is None:
        return None, found.workers
    try:
        return await place.find(deploy.version), found.workers
    except ReleaseUnknown:
        return None, found.workers


async def _known(place: Place, digest: str) -> ReleaseRow:
    try:
        return await place.find(digest)
    except ReleaseUnknown:
        cure = "First: circuit-script deploy --validate-only. Then --quick."
        raise DeployRefused("These files were never validated.", cure=cure) from None


def _agreed(deploy: _Deploy) -> bool:
    assert deploy.release is not None
    instead = "" if deploy.before is None else f" in the place of {deploy.before.name}"
    if not typer.confirm(f"Take {deploy.release.name} live in {deploy.reach.name}{instead}?", err=True):
        raise DeployRefused(
            f"Nobody said yes. {deploy.release.name} is kept.",
            cure=f"circuit-script deploy --quick{deploy.reach.option}",
        )
    return True


def _told(deploy: _Deploy, refused: CircuitError | None) -> dict[str, Any]:
    release, move, watched = deploy.release, deploy.move, deploy.watched
    return {
        "environment": deploy.env,
        "to": deploy.to,
        "release": None if release is None else release.name,
        "digest": None if release is None else release.digest,
        "live": (move is not None or deploy.is_live) and not (watched and watched.next),
        "before": None if deploy.before is None else deploy.before.name,
        "shadow": deploy.shadow is not None,
        "steps": deploy.steps.told,
        "refused": None if refused is None else _why(refused),
        "watched": None if watched is None else {
            "executions": watched.counts.executions, "errors": watched.counts.errors,
            "rolled_back": watched.rolled_back, "reason": "" if watched.next is None else watched.next.reason,
        },
    }  # fmt: skip


def _tell_end(deploy: _Deploy, *, validate_only: bool, quiet: bool) -> None:
    release = deploy.release
    assert release is not None
    if quiet:
        return
    seconds = sum(each.seconds for each in deploy.steps.all)
    there = deploy.reach.option
    if deploy.shadow is not None:
        print(f"{release.name} is compared with {deploy.shadow.against_name}. See: circuit-script shadow{there}")
    elif validate_only:
        print(f"{release.name} has passed every gate in {seconds:.1f} s. Live: circuit-script deploy --quick{there}")
    elif deploy.watched is not None and deploy.watched.rolled_back:
        print(f"{release.name} was rolled back. What it did: circuit-script effects --release {release.name}{there}")
    else:
        before = seconds - sum(each.seconds for each in deploy.steps.all if each.name == "watch")
        print(f"{release.name} is live, {before:.1f} s. The way back: circuit-script rollback{there}")
