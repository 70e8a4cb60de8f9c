"""The app: its handlers, the keys of its sources, its port, its addresses."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

from circuit_script.cli.app_import import import_in_child
from circuit_script.cli.doctor.check import Check, bad, good, warning
from circuit_script.config import VENDOR_GOHIGHLEVEL_KEY, Settings
from circuit_script.errors import CircuitError, StartError
from circuit_script.events.sources import open_sources
from circuit_script.governor.governor import CircuitGovernor
from circuit_script.listening import listen
from circuit_script.tenants import TenantMap, Tiers
from circuit_script.wiring.tenants import check_tenants

PATIENCE = 5.0  # seconds for one address


async def app(settings: Settings) -> list[Check]:
    """Whether it can be loaded, and what it declares."""
    try:
        governor = CircuitGovernor.of_settings(settings)
        manifest = await import_in_child(settings)
        check_tenants(manifest.handlers, settings.tenant_names)
    except CircuitError as error:
        return [bad("app", error.detail, f"{error.cure} More: circuit-script explain {error.page}")]
    endpoints = sum(1 for handler in manifest.handlers if handler.endpoint is not None)
    jobs = sum(1 for handler in manifest.handlers if handler.job is not None)
    triggers = len(manifest.handlers) - endpoints - jobs
    said = f"{settings.app}: {_count(triggers, 'trigger')}, {_count(endpoints, 'endpoint')}"
    found = [good("app", said)]
    if not manifest.handlers:
        found = [
            warning("app", f"{settings.app} has no handlers.", "Put @trigger above a function in app/triggers.py.")
        ]
    found += [warning("app", each, "More: circuit-script explain isolation.") for each in manifest.warnings]
    cuts = [cut for cut in governor.cuts((each.name, each.limits) for each in manifest.handlers) if cut.tier is None]
    return found + [warning("limits", str(cut), f"Declare less, or raise {cut.by} in circuit.toml.") for cut in cuts]


def sources(settings: Settings) -> Iterator[Check]:
    """Whether the keys can be read, and whether each account has one."""
    try:
        open_sources(settings.sources)
        TenantMap(settings.accounts)
        Tiers.of_settings(settings)
    except CircuitError as error:
        yield bad("sources", error.detail, error.cure)
        return
    own = settings.sources.gohighlevel.public_key != VENDOR_GOHIGHLEVEL_KEY
    yield good("gohighlevel", "signed by a key of your own" if own else "signed by the vendor's published key")
    secrets = settings.sources.standard.secrets
    mapped = [account for sources in settings.accounts.values() for account in sources.get("standard", ())]
    if missing := sorted(set(mapped) - set(secrets)):
        cure = f'Add {missing[0]} = "whsec_…" to [sources.standard.secrets] in circuit.toml.'
        yield warning("standard", f"Accounts without a secret: {', '.join(missing)}; theirs is refused.", cure)
    else:
        yield good("standard", f"{_count(len(secrets), 'account')} with a secret" if secrets else "no account yet")


def port(settings: Settings) -> Check:
    """Whether the gateway could listen, or does already."""
    gateway = settings.gateway
    owner = supervisor_of(settings)
    if owner:
        return good("port", f"the app runs (process {owner})")
    if gateway.port == 0:
        return good("port", "any free one")
    try:
        listen(gateway.host, gateway.port).close()
    except StartError as error:
        return bad("port", error.detail, error.cure)
    return good("port", f"{gateway.host}:{gateway.port} is free")


def supervisor_of(settings: Settings) -> int:
    """The process that runs the app in this folder; 0 when none does."""
    try:
        lock = os.open(settings.state / "serve.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
        return int(owner) if owner.isdigit() else 1
    finally:
        os.close(lock)
    return 0


async def addresses(settings: Settings) -> AsyncIterator[Check]:
    """Whether somebody listens at each address; nothing is sent."""
    for name, address in settings.addresses.items():
        parts = urlsplit(address.url)
        at = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        try:
            async with asyncio.timeout(PATIENCE):
                _, writer = await asyncio.open_connection(*at.rsplit(":", 1))
            writer.close()
        except (OSError, TimeoutError) as error:
            said = f"{name}: nobody listens at {at} ({str(error) or 'no answer'})."
            yield bad("address", said, f"Check [addresses.{name}] url in circuit.toml, and the network.")
        else:
            yield good("address", f"{name}: {at} can be reached")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
