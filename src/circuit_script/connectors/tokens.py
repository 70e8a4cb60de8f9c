"""Tenants' accounts at vendors: their tokens, sealed in ``circuit.connections``, refreshed before they end.

A refresh token may serve only once. So it is used under a lock on its row, and what came for it is stored before it is
used; a worker that comes second finds the fresh one. A refresh is not given up half way when whoever waits for it is.
What cannot be helped is a process that dies between the vendor's answer and our commit: the vendor then says
``invalid_grant``, and a person has to connect again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

import psycopg
import structlog
from psycopg.rows import dict_row
from psycopg_pool import PoolTimeout

from circuit_script.clock import now
from circuit_script.connectors.api import Access
from circuit_script.db.pool import Connection as Database
from circuit_script.db.pool import unavailable
from circuit_script.errors import NotConnected, SecretMissing, SecretsUnavailable, VendorUnavailable
from circuit_script.telemetry.redact import KNOWN

log = structlog.get_logger()

Kind = Literal["private", "oauth", "agency", "location"]
AGENCY = ""  # the tenant under which an agency's own tokens are kept

REREAD = 30.0  # seconds for which an access is used without looking whether another worker has a fresher one
MARGIN = 600.0  # seconds before its end at which a token is refreshed, or a tenth of its life, if that is less
SOONEST = 60.0  # seconds between two refreshes because the vendor did not take what it had given
PATIENCE = 20.0  # seconds that one who needs a token waits for it
STORING = (0.0, 0.2, 1.0, 3.0)  # seconds before each try to store what a vendor gave, once
MOST = 10_000  # tenants remembered

_COLUMNS = "tenant, connector, account, base_url, kind, scopes, access, refresh, expires_at, refreshed_at, broken"
_READ = f"SELECT {_COLUMNS} FROM circuit.connections WHERE tenant = %s AND connector = %s"
_LOCK = f"{_READ} FOR UPDATE"
_NEW = """
INSERT INTO circuit.connections AS c
    (tenant, connector, account, base_url, kind, scopes, access, refresh, expires_at, refreshed_at, connected_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp())
"""
_FIRST = f"{_NEW} ON CONFLICT DO NOTHING"
_PUT = f"""{_NEW}
ON CONFLICT (tenant, connector) DO UPDATE SET account = excluded.account, base_url = excluded.base_url,
    kind = excluded.kind, scopes = excluded.scopes, access = excluded.access, refresh = excluded.refresh,
    expires_at = excluded.expires_at, refreshed_at = excluded.refreshed_at, connected_at = excluded.connected_at,
    broken = NULL
"""
_FRESH = """
UPDATE circuit.connections SET access = %s, refresh = %s, expires_at = %s, base_url = %s,
    scopes = CASE WHEN %s::text = '' THEN scopes ELSE %s::text END,
    refreshed_at = greatest(clock_timestamp(), refreshed_at + interval '1 microsecond'), broken = NULL
WHERE tenant = %s AND connector = %s AND refreshed_at = %s
RETURNING refreshed_at
"""
_BROKEN = "UPDATE circuit.connections SET broken = %s WHERE tenant = %s AND connector = %s AND refreshed_at = %s"
_LIST = """
SELECT tenant, connector, account, base_url, kind, expires_at, refreshed_at, connected_at, broken, scopes
FROM circuit.connections WHERE %(tenant)s::text IS NULL OR tenant = %(tenant)s ORDER BY connector, tenant
"""
_DROP = "DELETE FROM circuit.connections WHERE tenant = %s AND connector = %s"


class Disconnected(NotConnected):
    """The vendor does not take the tenant's tokens any more."""

    def __init__(self, tenant: str, connector: str, why: str) -> None:
        self.tenant = tenant
        self.connector = connector
        of = f" --tenant {tenant}" if tenant else " --agency"
        VendorUnavailable.__init__(
            self,
            f"{connector} gives tenant {tenant or '(agency)'} no fresh token: {why}.",
            cure=f"Connect again: circuit-script connect {connector}{of}",
        )


class GrantGone(Exception):
    """A vendor gives no token for what it was shown; its words."""


class Sealer(Protocol):
    """Seals texts, each for its place: `circuit_script.secrets.Keys`."""

    def seal(self, text: str, of: str) -> bytes: ...

    def open(self, sealed: bytes, of: str) -> str: ...


class Kept(Protocol):
    """Secrets by name: `circuit_script.secrets.Secrets`."""

    async def get(self, tenant: str, name: str) -> str: ...


class Lends(Protocol):
    """A pool, or whoever else lends a connection."""

    def connection(self) -> AbstractAsyncContextManager[Database]: ...


class NoSecrets:
    """Where nobody keeps any."""

    async def get(self, tenant: str, name: str) -> str:
        raise SecretMissing(f"There is no {name}.")


class NoDatabase:
    """Where there is none, or nothing that seals what stands in it."""

    def connection(self) -> AbstractAsyncContextManager[Database]:
        raise SecretsUnavailable("There is no database to keep tokens in.")

    def seal(self, text: str, of: str) -> bytes:
        raise SecretsUnavailable("There is no key to seal tokens with.")

    def open(self, sealed: bytes, of: str) -> str:
        raise SecretsUnavailable("There is no key to open tokens with.")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a vendor gave. ``lives`` are the access token's seconds, None without an end; without ``refresh`` the one
    before stays good."""

    access: str = field(repr=False)
    refresh: str | None = field(default=None, repr=False)
    lives: float | None = None
    account: str = ""
    base_url: str = ""
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """One connection, as it may be shown."""

    tenant: str
    connector: str
    account: str
    base_url: str
    kind: Kind
    expires_at: datetime | None
    refreshed_at: datetime
    connected_at: datetime
    broken: str | None
    scopes: tuple[str, ...] = ()


class Grants(Protocol):
    """One vendor's way of giving tokens.

    ``refresh`` and ``of_location`` raise GrantGone when the vendor says no for good, SecretMissing where the app's own
    id or secret is nowhere, and SecretsUnavailable when there is no answer.
    """

    name: str
    base_url: str

    def headers(self, access: str) -> Mapping[str, str]: ...

    async def refresh(self, tenant: str, refresh: str, kind: Kind) -> Tokens: ...

    async def of_location(self, agency: Access, location: str) -> Tokens:
        """A token of one of an agency's locations; only vendors that have such are asked."""
        ...


@dataclass(frozen=True, slots=True)
class _Row:
    tenant: str
    connector: str
    account: str
    base_url: str
    kind: Kind
    scopes: tuple[str, ...]
    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    expires_at: datetime | None
    refreshed_at: datetime
    broken: str | None


@dataclass(slots=True)
class _Held:
    access: Access
    row: _Row | None
    read_at: float


@dataclass(slots=True)
class _Unsaved:
    """What a vendor gave and the database did not take yet."""

    row: _Row
    before: datetime


@dataclass(frozen=True, slots=True)
class _No:
    """Why a vendor gave nothing for the tokens of ``before``; it is not asked again until ``until``."""

    before: datetime
    until: float
    why: str


def no_account(tenant: str) -> str:
    return ""


class Connections:
    """The `Credentials` of one vendor, over the table and, for private tokens, the secret ``<vendor>.token``. Without a
    database there are only the latter.

    ``account_of`` says which account a tenant has by circuit.toml ("" where it says none): that of a private token that
    is a secret, and the location for which an agency's token is asked.
    """

    def __init__(
        self,
        database: Lends | None,
        sealer: Sealer | None,
        grants: Grants,
        *,
        secrets: Kept | None = None,
        account_of: Callable[[str], str] = no_account,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reads = database is not None and sealer is not None
        self._database: Lends = database or NoDatabase()
        self._sealer: Sealer = sealer or NoDatabase()
        self._grants = grants
        self._secrets = secrets
        self._account_of = account_of
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._running: dict[str, asyncio.Task[_Row]] = {}
        self._unsaved: dict[str, _Unsaved] = {}
        self._forced: dict[str, float] = {}
        self._said_no: dict[str, _No] = {}

    # --- Credentials

    async def of(self, tenant: str) -> Access:
        """The access now. Raises NotConnected, SecretMissing, SecretsUnavailable."""
        held = self._held.get(tenant)
        if held is not None and self._clock() - held.read_at < REREAD and not _is_due(held.row):
            return held.access
        return (await self._look(tenant)).access

    async def refused(self, tenant: str, access: Access) -> bool:
        """Whether there is another access than the one that the vendor did not take."""
        self._held.pop(tenant, None)
        held = await self._look(tenant)
        if dict(held.access.headers) != dict(access.headers):
            return True
        if held.row is None or held.row.kind == "private":
            return False
        last = self._forced.get(tenant)
        if last is not None and self._clock() - last < SOONEST:
            return False
        self._forced[tenant] = self._clock()
        await self._renewed(held.row)
        self._held.pop(tenant, None)
        return True

    def scopes(self, tenant: str) -> tuple[tuple[str, ...], Kind]:
        """What the access that was given last may do, as far as the vendor said it, and of which kind it is."""
        held = self._held.get(tenant)
        return (held.row.scopes, held.row.kind) if held is not None and held.row is not None else ((), "private")

    # --- what people do

    async def put(self, tenant: str, tokens: Tokens, kind: Kind) -> None:
        """Connect a tenant. Raises SecretsUnavailable."""
        await self._put(_PUT, tenant, tokens, kind)
        self._held.pop(tenant, None)
        self._unsaved.pop(tenant, None)

    # --- inside

    async def _put(self, statement: str, tenant: str, tokens: Tokens, kind: Kind) -> None:
        expires = None if tokens.lives is None else now() + timedelta(seconds=tokens.lives)
        access = self._sealer.seal(tokens.access, self._place(tenant, "access"))
        refresh = self._sealed_refresh(tenant, tokens.refresh)
        values = [tenant, self._grants.name, tokens.account, tokens.base_url or self._grants.base_url, kind,
                  " ".join(tokens.scopes), access, refresh, expires]  # fmt: skip
        async with _asking(self._database) as connection:
            await connection.execute(statement.encode(), values)

    async def _look(self, tenant: str) -> _Held:
        unsaved = self._unsaved.get(tenant)
        row = await self._save(unsaved) if unsaved is not None else await self._read(tenant)
        if row is None:
            return self._keep(tenant, await self._without_row(tenant))
        if _is_due(row):
            row = await self._renewed(row)
        return self._keep(tenant, _Held(self._access(row), row, self._clock()))

    async def _without_row(self, tenant: str) -> _Held:
        """A private token that is a secret; else one of the agency's, for the tenant's location."""
        name = self._grants.name
        if self._secrets is not None:
            with contextlib.suppress(SecretMissing):
                token = await self._secrets.get(tenant, f"{name}.token")
                account = self._account_of(tenant)
                if not account:
                    with contextlib.suppress(SecretMissing):
                        account = await self._secrets.get(tenant, f"{name}.account")
                access = Access(self._grants.headers(token), self._grants.base_url, account)
                return _Held(access, None, self._clock())
        location = self._account_of(tenant)
        if tenant == AGENCY or not location or await self._read(AGENCY) is None:
            raise NotConnected(tenant, name)
        tokens = await self._of_location(tenant, location)
        await self._put(_FIRST, tenant, tokens, "location")  # whoever has connected meanwhile stays so
        row = await self._read(tenant)
        if row is None:
            raise NotConnected(tenant, name)
        return _Held(self._access(row), row, self._clock())

    def _keep(self, tenant: str, held: _Held) -> _Held:
        self._held[tenant] = held
        self._held.move_to_end(tenant)
        if len(self._held) > MOST:
            self._held.popitem(last=False)
        return held

    def _access(self, row: _Row) -> Access:
        KNOWN.learn(row.access)
        return Access(self._grants.headers(row.access), row.base_url, row.account)

    async def _renewed(self, row: _Row) -> _Row:
        """The row with a fresh token. One refresh of a tenant at a time in this process; it goes on when whoever waits
        is cancelled. Raises Disconnected, SecretMissing, SecretsUnavailable."""
        task = self._running.get(row.tenant)
        if task is None:
            task = self._running[row.tenant] = asyncio.get_running_loop().create_task(self._renew(row))
            task.add_done_callback(lambda done: self._ended(row.tenant, done))
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(task)
        except TimeoutError:
            raise SecretsUnavailable(f"{self._grants.name} has not given a fresh token in {PATIENCE:g} s.") from None

    def _ended(self, tenant: str, task: asyncio.Task[_Row]) -> None:
        self._running.pop(tenant, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have waited

    async def _renew(self, seen: _Row) -> _Row:
        if seen.kind == "location":
            return await self._renew_location(seen)
        no = self._said_no.get(seen.tenant)
        if no is not None and no.before == seen.refreshed_at and self._clock() < no.until:
            return _still_good(seen, no.why)
        try:
            found = await self._exchanged(seen)
        except SecretsUnavailable:
            unsaved = self._unsaved.get(seen.tenant)
            if unsaved is None or unsaved.before != seen.refreshed_at:
                raise
            return await self._save(unsaved)  # the vendor has given it, and the database did not take it
        if isinstance(found, _Row):
            self._said_no.pop(seen.tenant, None)
            return found
        self._said_no[seen.tenant] = _No(seen.refreshed_at, self._clock() + SOONEST, found)
        return _still_good(seen, found)

    async def _exchanged(self, seen: _Row) -> _Row | str:
        """Under the row's lock: the fresh row, stored; or why there is none. Raises as `_renewed`."""
        async with _asking(self._database) as connection, connection.transaction():
            row = self._opened(await (await connection.execute(_LOCK, [seen.tenant, seen.connector])).fetchone())
            if row is None:
                raise NotConnected(seen.tenant, seen.connector)
            if row.refreshed_at != seen.refreshed_at:
                return row  # another worker was first
            if row.refresh is None:
                return "there is no refresh token"
            try:
                tokens = await self._grants.refresh(row.tenant, row.refresh, row.kind)
            except GrantGone as gone:
                why = f"{str(gone)[:200]} (a refresh token serves once, and is gone when the app is taken out)"
                await connection.execute(_BROKEN, [why, row.tenant, row.connector, row.refreshed_at])
                log.error("tokens.refused", connector=row.connector, tenant=row.tenant, reason=why,
                          cure=f"circuit-script connect {row.connector} --tenant {row.tenant}")  # fmt: skip
                return why
            unsaved = self._unsaved[row.tenant] = _Unsaved(_freshened(row, tokens), row.refreshed_at)
            saved = await self._write(connection, unsaved)
        self._unsaved.pop(seen.tenant, None)
        return saved or unsaved.row

    async def _renew_location(self, seen: _Row) -> _Row:
        """A location's token is asked for anew; two workers that do it at once harm nobody."""
        tokens = await self._of_location(seen.tenant, seen.account)
        fresh = _freshened(seen, replace(tokens, refresh=None))
        unsaved = self._unsaved[seen.tenant] = _Unsaved(fresh, seen.refreshed_at)
        return await self._save(unsaved)

    async def _of_location(self, tenant: str, location: str) -> Tokens:
        """Raises Disconnected, SecretMissing, SecretsUnavailable."""
        agency = await self.of(AGENCY)
        try:
            tokens = await self._grants.of_location(agency, location)
        except GrantGone:
            if not await self.refused(AGENCY, agency):
                raise Disconnected(tenant, self._grants.name, f"its agency has no token for {location}") from None
            try:
                tokens = await self._grants.of_location(await self.of(AGENCY), location)
            except GrantGone as gone:
                raise Disconnected(tenant, self._grants.name, str(gone)[:200]) from None
        return replace(tokens, account=location, refresh=None)

    async def _save(self, unsaved: _Unsaved) -> _Row:
        """Store what a vendor gave, or see that it is stored. While the database is away it is used as it is: it is the
        only one there is. Raises nothing."""
        row = unsaved.row
        for pause in STORING:
            await asyncio.sleep(pause)
            try:
                async with _asking(self._database) as connection:
                    saved = await self._write(connection, unsaved) or await self._find(connection, row.tenant)
            except SecretsUnavailable as error:
                log.error("tokens.unsaved", connector=row.connector, tenant=row.tenant, error=str(error)[:200],
                          next="trying again: a refresh token serves once")  # fmt: skip
                continue
            self._unsaved.pop(row.tenant, None)
            return saved or row
        return row

    async def _write(self, connection: Database, unsaved: _Unsaved) -> _Row | None:
        """Store it in place of what it was got for; None when that is not there any more."""
        row = unsaved.row
        access = self._sealer.seal(row.access, self._place(row.tenant, "access"))
        refresh = self._sealed_refresh(row.tenant, row.refresh)
        scopes = " ".join(row.scopes)
        cursor = await connection.execute(
            _FRESH,
            [access, refresh, row.expires_at, row.base_url, scopes, scopes, row.tenant, row.connector, unsaved.before],
        )
        stored = await cursor.fetchone()
        return None if stored is None else replace(row, refreshed_at=stored[0], broken=None)

    async def _read(self, tenant: str) -> _Row | None:
        if not self._reads:
            return None
        async with _asking(self._database) as connection:
            return await self._find(connection, tenant)

    async def _find(self, connection: Database, tenant: str) -> _Row | None:
        return self._opened(await (await connection.execute(_READ, [tenant, self._grants.name])).fetchone())

    def _opened(self, found: tuple[Any, ...] | None) -> _Row | None:
        if found is None:
            return None
        tenant, connector, account, base_url, kind, scopes, access, refresh, expires_at, refreshed_at, broken = found
        return _Row(
            tenant, connector, account, base_url, kind, tuple(scopes.split()),
            self._sealer.open(bytes(access), self._place(tenant, "access")),
            None if refresh is None else self._sealer.open(bytes(refresh), self._place(tenant, "refresh")),
            expires_at, refreshed_at, broken,
        )  # fmt: skip

    def _sealed_refresh(self, tenant: str, refresh: str | None) -> bytes | None:
        return None if refresh is None else self._sealer.seal(refresh, self._place(tenant, "refresh"))

    def _place(self, tenant: str, part: str) -> str:
        """What a token is bound to: it opens in this row and column only."""
        return f"{tenant}/{self._grants.name}/{part}"


def _is_due(row: _Row | None) -> bool:
    if row is None or row.expires_at is None:
        return False
    life = (row.expires_at - row.refreshed_at).total_seconds()
    return (row.expires_at - now()).total_seconds() < min(MARGIN, life / 10)


def _still_good(row: _Row, why: str) -> _Row:
    """It cannot be refreshed, and serves to its end. Raises Disconnected when that has come."""
    if row.expires_at is None or row.expires_at <= now():
        raise Disconnected(row.tenant, row.connector, why)
    return row


def _freshened(row: _Row, tokens: Tokens) -> _Row:
    return replace(
        row,
        access=tokens.access,
        refresh=tokens.refresh or row.refresh,
        expires_at=None if tokens.lives is None else now() + timedelta(seconds=tokens.lives),
        base_url=tokens.base_url or row.base_url,
        scopes=tokens.scopes,
    )


async def list_connections(connection: Database, tenant: str | None = None) -> list[Known]:
    """Every connection, or those of one tenant, without what opens them."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_LIST, {"tenant": tenant})
        rows = await cursor.fetchall()
    return [Known(**row | {"scopes": tuple(row["scopes"].split())}) for row in rows]


async def disconnect(connection: Database, tenant: str, connector: str) -> bool:
    """Forget a tenant's tokens; whether there were any. The vendor is not told."""
    return bool((await connection.execute(_DROP, [tenant, connector])).rowcount)


@contextlib.asynccontextmanager
async def _asking(database: Lends) -> AsyncIterator[Database]:
    """A connection; what the database refuses is raised as SecretsUnavailable."""
    try:
        async with database.connection() as connection:
            yield connection
    except (psycopg.Error, PoolTimeout, OSError) as error:
        said = unavailable(error) if isinstance(error, psycopg.Error) else error
        raise SecretsUnavailable(f"The database does not answer: {said}", page="database-unavailable") from None
