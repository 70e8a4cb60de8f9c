"""The three contestants behind one face: where to send to, and what they have finished."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import app, postgres
from benchmarks.peers import flask_celery
from benchmarks.processes import beside_python, free_port, http_get, pss_mb, python, running

BARE_DONE = "SELECT count(*), max(extract(epoch FROM pg_xact_commit_timestamp(xmin))) FROM bare.records"
PEER_DONE = "SELECT count(*), max(extract(epoch FROM pg_xact_commit_timestamp(xmin))) FROM peer.records"
OURS_DONE = """
    SELECT coalesce(sum(records), 0), max(extract(epoch FROM pg_xact_commit_timestamp(xmin)))
    FROM circuit.executions WHERE status IN ('succeeded', 'partial')
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A running one. ``finished`` counts events scored and stored; its second value is the last commit's epoch."""

    port: int
    database: str
    process: psutil.Process
    done_statement: str

    async def finished(self) -> tuple[int, float]:
        rows: list[tuple[Any, ...]] = await postgres.fetch(self.database, self.done_statement)
        return int(rows[0][0]), float(rows[0][1] or 0)

    def pss_mb(self) -> float:
        return pss_mb(self.process)


@asynccontextmanager
async def bare(folder: Path, database: str, public_key: str, *, intake_only: bool = False) -> AsyncIterator[Contestant]:
    """The ceiling: benchmarks/bare.py."""
    port = free_port()
    command = [python(), "-m", "benchmarks.bare", "--port", str(port), "--public-key", public_key]
    command += ["--database", database, *(["--intake-only"] if intake_only else [])]

    async def ready() -> bool:
        return (await http_get(port, "/"))[0] == 200

    async with running(command, log=folder / "bare.log", ready=ready) as process:
        yield Contestant(port, database, process, BARE_DONE)


@asynccontextmanager
async def ours(
    folder: Path,
    database: str,
    public_key: str,
    *,
    triggers: str,
    tenants: app.Tenants | None = None,
    port: int | None = None,
) -> AsyncIterator[Contestant]:
    """`circuit-script serve` on a fresh app in ``folder`` (or the one that is there, after a crash)."""
    port = port or free_port()
    if not (folder / "circuit.toml").exists():
        app.scaffold(folder, triggers=triggers, port=port, public_key=public_key, tenants=tenants)

    async def ready() -> bool:
        return (await http_get(port, "/readyz"))[0] == 200

    command = [python(), "-m", "circuit_script.cli", "serve"]
    async with running(
        command,
        log=folder / "serve.log",
        cwd=folder,
        env={"DATABASE_URL": database, "CIRCUIT_DASHBOARD__ENABLED": "false"},  # none of the others has one
        ready=ready,
    ) as process:
        yield Contestant(port, database, process, OURS_DONE)


def redis_server() -> str | None:
    """The path of redis-server, or None where it is not installed."""
    return shutil.which("redis-server")


@asynccontextmanager
async def flask_and_celery(folder: Path, database: str, public_key: str) -> AsyncIterator[Contestant]:
    """gunicorn with Flask, Celery with two processes, and Redis."""
    port, redis_port = free_port(), free_port()
    environment = {
        "PEER_DATABASE": database,
        "PEER_REDIS": f"redis://127.0.0.1:{redis_port}/0",
        "PEER_PUBLIC_KEY": public_key,
        "C_FORCE_ROOT": "1",
    }
    await postgres.execute(database, flask_celery.SCHEMA)
    redis = [redis_server() or "redis-server", "--port", str(redis_port), "--bind", "127.0.0.1"]
    redis += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    gunicorn = [beside_python("gunicorn") or "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "2", "-k", "gthread"]
    gunicorn += ["--no-control-socket", "--threads", "32", "--keep-alive", "60", "benchmarks.peers.flask_celery:web"]
    celery = [beside_python("celery") or "celery", "-A", "benchmarks.peers.flask_celery:queue", "worker"]
    celery += ["-c", "2", "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]

    async def web_up() -> bool:
        return (await http_get(port, "/ready"))[0] == 200

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(redis, log=folder / "redis.log", ready=lambda: _listening(redis_port)))
        web = await stack.enter_async_context(
            running(gunicorn, log=folder / "gunicorn.log", env=environment, ready=web_up)
        )
        # Celery has no sign of readiness that is cheap to read; the caller's warm-up waits for its first task.
        await stack.enter_async_context(running(celery, log=folder / "celery.log", env=environment, ready=lambda: True))
        yield Contestant(port, database, web, PEER_DONE)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
