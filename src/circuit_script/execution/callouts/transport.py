"""An HTTP client that connects to the very address that was checked. Host and TLS name stay those of the URL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore
import httpx

from circuit_script.execution.callouts.guard import Guard

CONNECTIONS = 1000
KEPT_ALIVE = 100
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


class GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport on guarded connections, without proxies."""

    def __init__(self, guard: Guard, *, verify: Any = True) -> None:
        context = httpx.create_ssl_context(verify=verify)  # SSL_CERT_FILE is heeded: an owner's own authority
        super().__init__(verify=context)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=CONNECTIONS,
            max_keepalive_connections=KEPT_ALIVE,
            keepalive_expiry=5.0,
            network_backend=GuardedBackend(guard),
        )


def open_client(guard: Guard) -> httpx.AsyncClient:
    """A client for the callouts of many tenants: no redirects, no cookies, nothing from the environment."""
    return httpx.AsyncClient(
        transport=GuardedTransport(guard), follow_redirects=False, cookies=no_cookies(), trust_env=False
    )


def no_cookies() -> CookieJar:
    """A jar that takes none: one tenant's session must not go out with another's callout."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))
