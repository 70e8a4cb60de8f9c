"""A release that was deployed, made ready on this host: its files, packages, a zygote, and the proof that it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import structlog

from circuit_script.db.pool import Pool
from circuit_script.errors import AppError, ReleaseRefused, ReplayRefused
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.releases import known_as
from circuit_script.releases.archive import unpacked
from circuit_script.releases.records import manifest_of
from circuit_script.wiring.environments import interpreter_in_use
from circuit_script.wiring.live import Live

log = structlog.get_logger()

STORED = "SELECT requirements, manifest FROM circuit.releases WHERE id = %s"

MakeChildren = Callable[[Path, str], Children]


async def prepare(
    release: int, database: Pool, make_children: MakeChildren, check: Callable[[Iterable[HandlerSpec]], None]
) -> Live:
    """The release, ready to take executions; whoever stops its children closes its ``files``. ``make_children`` gets
    its folder and its interpreter, ``check`` its handlers.

    Raises AppError with file and line, or ReleaseRefused, when it cannot run here; psycopg.Error.
    """
    async with contextlib.AsyncExitStack() as stack:
        async with database.connection() as connection:
            row = await (await connection.execute(STORED, [release])).fetchone()
            if row is None:
                raise ReleaseRefused(f"There is no release {release}.")
            try:
                folder = await stack.enter_async_context(unpacked(connection, release))
            except ReplayRefused as error:
                raise ReleaseRefused(error.detail, cure="Deploy it again.") from None
            except OSError as error:  # not the database: another attempt would find the same
                wrong = f"its files cannot be unpacked here: {error.strerror or error}."
                raise AppError(wrong, cure="Make room where temporary files are.", page="release") from None
        children = make_children(folder, await stack.enter_async_context(interpreter_in_use(row[0])))
        stack.push_async_callback(children.stop)
        try:
            manifest = await children.start()
            check(manifest.handlers)
            _compare(row[1], manifest.handlers)
            await children.prove()
        except AppError as error:
            detail = error.detail.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")
            raise AppError(detail, cure=error.cure, page=error.page) from None
        for warning in manifest.warnings:
            log.warning("app.import", release=release, warning=warning)
        async with database.connection() as connection:
            recorded = await known_as(connection, release, manifest.handlers)
        return Live(recorded, children, manifest, stack.pop_all())


def _compare(recorded: Sequence[dict[str, Any]], handlers: Sequence[HandlerSpec]) -> None:
    """Raises AppError where the app declares here what it did not where it was deployed from."""
    there = {each["name"]: _declared(each) for each in recorded}
    here = {each["name"]: _declared(each) for each in manifest_of(handlers)}
    if there.keys() != here.keys():
        names = ", ".join(sorted(there.keys() ^ here.keys())[:5])
        raise _differs(f"it declares other handlers here than where it was deployed from: {names}")
    for each in handlers:
        if there[each.name] != here[each.name]:
            raise _differs(
                f"{each.file}:{each.line}: {each.name} is declared otherwise than where it was deployed from"
            )


def _declared(handler: dict[str, Any]) -> dict[str, Any]:
    """What must be the same. Another version of the platform may know more of it."""
    routes = sorted([list(each) for each in handler.get("routes") or ()])
    endpoint, job = handler.get("endpoint") or {}, handler.get("job") or {}
    paths = sorted(way["path"] for way in endpoint.get("ways") or ())
    return {"routes": routes, "paths": paths, "kind": job.get("kind")}


def _differs(detail: str) -> AppError:
    return AppError(f"{detail}.", cure="Let it declare the same everywhere.", page="release")
