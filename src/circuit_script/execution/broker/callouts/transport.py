"""An HTTP client that connects to the very address that was checked. Host and TLS name stay those of the URL.

Each tenant has connections of its own: what one of them leaves on a connection, no other reads.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore
import httpx

from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.resolver import waits_for

CONNECTIONS = 100  # of one tenant
KEPT_ALIVE = 10  # of one tenant
KEPT_FOR = 5.0  # seconds
IDLE_TENANTS = 50  # whose connections are kept alive
LAST_TRY = 0.05  # seconds that an address is given at least

_Options = Iterable[Any] | None


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Where httpcore opens its connections: each name is resolved here, once, and its addresses are checked."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _Options = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to one of the host's addresses, in their order. Raises CalloutRefused, httpcore's errors."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + (timeout if timeout is not None else 60.0)
        try:
            async with asyncio.timeout_at(ends):
                addresses = await self._guard.checked(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} was not found in time") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host}: {error}") from None
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for place, address in enumerate(addresses):
            share = (ends - loop.time()) / (len(addresses) - place)  # an address that is dead must not use up all
            try:
                return await self._inner.connect_tcp(address, port, max(LAST_TRY, share), local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None  # `checked` gives at least one address
        raise failure

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: _Options = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("a callout has no way to a Unix socket")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _TenantTransport(httpx.AsyncHTTPTransport):
    """One tenant's connections. ``used`` are the requests that have one or wait for one."""

    def __init__(self, guard: Guard, context: ssl.SSLContext) -> None:
        super().__init__(verify=context)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=None,
            max_keepalive_connections=KEPT_ALIVE,
            keepalive_expiry=KEPT_FOR,
            network_backend=GuardedBackend(guard),
        )
        self.used = 0
        self.since = 0.0  # nobody uses it
        self._room = asyncio.Semaphore(CONNECTIONS)  # not the pool's own: who waits here has not reached the host

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.used += 1
        try:
            with waits_for("one of its tenant's connections"):
                await self._room.acquire()
        except BaseException:
            self.used -= 1
            raise
        try:
            response = await super().handle_async_request(request)
        except BaseException:
            self._over()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Counted(response.stream, self._over)
        return response

    def _over(self) -> None:
        self.used -= 1
        self.since = time.monotonic()
        self._room.release()


class _Counted(httpx.AsyncByteStream):
    """A body; ``over`` is called once when it is let go."""

    def __init__(self, inner: httpx.AsyncByteStream, over: Callable[[], None]) -> None:
        self._inner = inner
        self._over: Callable[[], None] | None = over

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            yield chunk

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            if (over := self._over) is not None:
                self._over = None
                over()


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx's own transport on guarded connections, without proxies: one for each tenant, which the request's
    extension "tenant" names. Those that nobody uses are closed after a while, or when there are too many."""

    def __init__(self, guard: Guard, *, verify: ssl.SSLContext | None = None) -> None:
        self._guard = guard
        self._context = verify or authorities()
        self._tenants: OrderedDict[str, _TenantTransport] = OrderedDict()
        self._ends: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._let_go()
        tenant = str(request.extensions.get("tenant", ""))
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = _TenantTransport(self._guard.of(tenant), self._context)
        self._tenants.move_to_end(tenant)
        return await found.handle_async_request(request)

    async def aclose(self) -> None:
        """Close every connection."""
        tenants = list(self._tenants.values())
        self._tenants.clear()
        await asyncio.gather(*self._ends, *(each.aclose() for each in tenants), return_exceptions=True)

    def _let_go(self) -> None:
        """Close what nobody used for a while."""
        over = len(self._tenants) - IDLE_TENANTS
        now = time.monotonic()
        idle: list[_TenantTransport] = []
        for name, each in list(self._tenants.items()):  # those used longest ago first
            if len(idle) >= over and now - each.since < KEPT_FOR:
                break
            if not each.used:
                idle.append(self._tenants.pop(name))
        if idle:  # by itself: nobody's callout waits for it, and none that is cancelled leaves it half done
            end = asyncio.create_task(_close(idle))
            self._ends.add(end)
            end.add_done_callback(self._ends.discard)


async def _close(transports: Iterable[httpx.AsyncHTTPTransport]) -> None:
    for each in transports:
        with suppress(Exception):  # an end that fails is one
            await each.aclose()


def open_client(guard: Guard) -> httpx.AsyncClient:
    """A client for the callouts of many tenants: no redirects, no cookies, nothing from the environment."""
    return httpx.AsyncClient(
        transport=GuardedTransport(guard), follow_redirects=False, cookies=no_cookies(), trust_env=False
    )


@cache
def authorities() -> ssl.SSLContext:
    """Whom this process trusts to certify hosts; SSL_CERT_FILE is heeded: an owner's own. Read once: it takes 0.1 s."""
    return httpx.create_ssl_context()


def no_cookies() -> CookieJar:
    """A jar that takes none: one tenant's session must not go out with another's callout."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))
