"""Runs a gateway until it is told to stop; what was accepted by then is finished."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from functools import partial

import psycopg
import uvicorn

from circuit_script.config import Settings
from circuit_script.db.pool import Pool, open_connection, open_pool, unavailable
from circuit_script.endpoints.address import socket_path
from circuit_script.endpoints.client import Link
from circuit_script.errors import StartError
from circuit_script.events.bell import Bell
from circuit_script.events.intake import Intake
from circuit_script.events.ledger import Ledger
from circuit_script.events.sources import open_sources
from circuit_script.events.status import StatusReader
from circuit_script.gateway.answers import Answers
from circuit_script.gateway.api import Api
from circuit_script.gateway.api.caller import POOL
from circuit_script.gateway.app import Gateway
from circuit_script.gateway.bodies import Bodies
from circuit_script.gateway.calls import MAX_CALLS, Endpoints
from circuit_script.gateway.metrics import MetricsReader
from circuit_script.gateway.mirrors import Mirrors
from circuit_script.gateway.protocol import MAX_SURPLUS, protocol_for
from circuit_script.gateway.webhooks import Webhooks
from circuit_script.listening import listen
from circuit_script.releases import has_endpoints
from circuit_script.telemetry.sentry import telling
from circuit_script.tenants import TenantMap
from circuit_script.tenants.callers import make_ring
from circuit_script.web_server import serve

GRACE = 10  # seconds that requests have to finish once the gateway is told to stop
OWN_FILES = 124  # that a gateway has open besides: the database's, its log, the socket that listens
WORKER_PATIENCE = 3.0  # seconds in which a worker that is there has answered


async def run_gateway(
    settings: Settings,
    url: str,
    *,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
    supervised: bool = False,
) -> None:
    """Serve until ``stop`` is set, or, without one, until SIGTERM or SIGINT.

    ``on_ready`` gets the address once it listens; ``supervised`` says that somebody keeps this host's worker running.
    Raises StartError when it cannot listen there or have so many connections, or when the release has endpoints and no
    worker answers.
    """
    _open_files(settings.gateway.max_connections)
    listener = listen(settings.gateway.host, settings.gateway.port)
    try:
        connect = partial(open_connection, url, pooler=settings.pooler, name="circuit-script gateway")
        intake = Intake(
            sources=open_sources(settings.sources),
            tenants=TenantMap(settings.accounts),
            ledger=Ledger(connect, pooler=settings.pooler),
            bell=None if settings.pooler else Bell(connect),
            max_waiting=settings.gateway.max_waiting,
        )
        pool = await open_pool(url, min_size=1, max_size=2, name="circuit-script status", pooler=settings.pooler)
        people = await open_pool(url, min_size=0, max_size=POOL, name="circuit-script api", pooler=settings.pooler)
        api = Api.of(settings, people)
        mirrors = Mirrors(settings.mirror, intake=intake, pool=pool, connect=connect, pooler=settings.pooler)
        async with (
            telling(settings, "gateway"),
            pool,
            people,
            api.counts.told(pool),
            Link(socket_path(settings.folder)) as link,
            mirrors,
        ):
            max_body, max_held = settings.gateway.max_body, settings.gateway.max_held
            endpoints = Endpoints(
                link=link,
                ring=make_ring(pool),
                bodies=Bodies(max_body, max_held),
                answers=Answers(max_held),
                origins=settings.gateway.cors_origins,
                expected=await _worker_is_there(pool, link, supervised),
            )
            webhooks = Webhooks(intake, max_body, max_held, mirrors)
            gateway = Gateway(
                intake=intake,
                configured=settings.sources.configured,
                status=StatusReader(pool),
                metrics=MetricsReader(pool, settings.budget.day),
                webhooks=webhooks,
                endpoints=endpoints,
                link=link,
                api=api,
            )
            await _serve(gateway, settings.gateway.max_connections, listener, stop, on_ready)
    finally:
        listener.close()


async def _worker_is_there(pool: Pool, link: Link, supervised: bool) -> bool:
    """Whether the release has endpoints, which a worker on this host must then answer. Raises StartError."""
    try:
        async with pool.connection() as connection:
            wanted = await has_endpoints(connection)
    except psycopg.Error as error:
        raise unavailable(error) from error
    if not await link.wait(WORKER_PATIENCE if wanted else 0.0) and wanted and not supervised:
        raise StartError(
            "The live release has endpoints, and no worker answers on this host.",
            cure="Start one in this folder: circuit-script serve --role worker",
            page="no-worker",
        )
    return wanted


def _open_files(connections: int) -> None:
    """Let this process open so many; each call of an endpoint takes a second file, its connection to the worker.

    Raises StartError where not even the connections have room.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least, wanted = connections + OWN_FILES, connections + OWN_FILES + MAX_SURPLUS + MAX_CALLS
    if hard != resource.RLIM_INFINITY:
        if hard < least:
            raise StartError(
                f"{connections:,} connections need {least:,} open files, and this process may have {hard:,}.",
                cure="Let it have more (LimitNOFILE= of systemd, ulimit -Hn), or lower [gateway] max_connections.",
            )
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(
    gateway: Gateway,
    connections: int,
    listener: socket.socket,
    stop: asyncio.Event | None,
    on_ready: Callable[[str], None] | None,
) -> None:
    config = uvicorn.Config(
        gateway,
        loop="none",  # the caller's
        http=protocol_for(connections),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    await serve(config, listener, stop, on_ready)
