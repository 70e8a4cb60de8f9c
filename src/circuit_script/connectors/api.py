"""One vendor's HTTP API, for all tenants: what every connector to a vendor sends its requests through.

It adds the tenant's access, bounds time and size, and says what each answer means by the vendor's own table of errors.
Nothing is tried again here but a request whose token was refused, once, with a fresh one: whoever delivers effects
tries again, and knows when.
"""

from __future__ import annotations

import asyncio
import json as json_text
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import httpx

from circuit_script.connectors.connector import Later, Refused, SlowDown, Unknown
from circuit_script.connectors.webhook import retry_after
from circuit_script.errors import NotConnected, SecretMissing, SecretsUnavailable

MAX_BODY = 32 * 1024 * 1024
QUOTED = 200  # characters of what a vendor says about a failure
LONGEST_CODE = 80
CONNECTING = 5.0  # seconds
HIDDEN = 6  # characters of a secret from which on it is looked for in what a vendor says

Means = Literal["refused", "later", "down", "slow_down", "unknown", "missing", "token"]
_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of a vendor's table of errors; the first that fits counts. ``status`` is one, or a range with both ends;
    ``code`` is the vendor's own, None for any.

    refused: for good, nothing was done · missing: so, as there is no such record · later: this may be tried again ·
    down: nothing can be done now · slow_down: too many requests · unknown: nobody knows whether it was done ·
    token: the access is not, or no longer, good.
    """

    status: int | tuple[int, int]
    means: Means
    code: str | None = None

    def fits(self, status: int, code: str | None) -> bool:
        low, high = (self.status, self.status) if isinstance(self.status, int) else self.status
        return low <= status <= high and self.code in (None, code)


class Failed(Exception):
    """A request that came to nothing. ``delivery`` says what that is for an effect; ``status`` and ``code`` are the
    vendor's, None without an answer; ``missing``: there is no such record; ``response`` is the whole answer."""

    def __init__(
        self,
        delivery: Refused | Later | SlowDown | Unknown,
        *,
        status: int | None = None,
        code: str | None = None,
        missing: bool = False,
        response: httpx.Response | None = None,
    ) -> None:
        self.delivery = delivery
        self.status = status
        self.code = code
        self.missing = missing
        self.response = response
        super().__init__(delivery.reason)


@dataclass(frozen=True, slots=True)
class Access:
    """What opens one tenant's account. ``headers`` hold the secret; ``account`` is the vendor's name for it (a
    location, an organization, a portal)."""

    headers: Mapping[str, str] = field(repr=False)
    base_url: str
    account: str = ""


class Credentials(Protocol):
    """The access of each tenant."""

    async def of(self, tenant: str) -> Access:
        """The access now. Raises NotConnected (or SecretMissing), and SecretsUnavailable."""
        ...

    async def refused(self, tenant: str, access: Access) -> bool:
        """The vendor did not take this access: is there a fresh one now?"""
        ...


def no_code(response: httpx.Response) -> str | None:
    """The vendor has no codes of its own."""
    return None


def after_of(response: httpx.Response) -> float | None:
    """Seconds that ``Retry-After`` says."""
    return retry_after(response.headers.get("retry-after"))


class Api:
    """Requests to one vendor. ``client`` is shared, ``headers`` go with every request, ``code_of`` finds the vendor's
    own code in an answer that is no success, ``wait_of`` the seconds that it wants to be left alone."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        credentials: Credentials,
        *,
        name: str,
        faults: Sequence[Fault],
        code_of: Callable[[httpx.Response], str | None] = no_code,
        timeout: float = 15.0,
        headers: Mapping[str, str] = _NO_HEADERS,
        wait_of: Callable[[httpx.Response], float | None] = after_of,
    ) -> None:
        self.name = name
        self._client = client
        self._credentials = credentials
        self._faults = tuple(faults)
        self._code_of = code_of
        self._timeout = timeout
        self._headers = dict(headers)
        self._wait_of = wait_of

    async def access(self, tenant: str) -> Access:
        """The tenant's access, for what stands in a path or a body (its account). Raises as `Credentials.of` does."""
        return await self._credentials.of(tenant)

    async def send(
        self,
        tenant: str,
        method: str,
        path: str,
        *,
        writes: bool = False,
        params: Any = None,
        json: Any = None,
        data: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        timeout: float | None = None,
    ) -> httpx.Response:
        """The answer, which is a success and read to its end. ``path`` begins with a slash; ``writes`` says that the
        request may change something, so that one without an answer is in doubt.

        Raises Failed. A tenant that is not connected is NotConnected (or SecretMissing) to a read; a write waits.
        """
        access = await self._open(tenant, writes)
        fresh = False
        while True:

            def build(access: Access = access) -> httpx.Request:
                return self._client.build_request(
                    method,
                    access.base_url.rstrip("/") + path,
                    params=params,
                    json=json,
                    data=data,
                    content=content,
                    headers={"accept": "application/json", **self._headers, **headers, **access.headers},
                    timeout=httpx.Timeout(timeout or self._timeout, connect=min(CONNECTING, timeout or self._timeout)),
                )  # fmt: skip

            response = await self._ask(build, access, path, writes, timeout or self._timeout)
            try:
                self._judge(response, access, writes)
                return response
            except _TokenRefused as refusal:
                if fresh or not await self._renewed(tenant, access):
                    reason = f"the access of {tenant} to {self.name} was refused: {refusal.reason}"
                    raise Failed(
                        Later(reason, down=True), status=response.status_code, code=refusal.code, response=response
                    ) from None
            access = await self._open(tenant, writes)
            fresh = True

    async def _open(self, tenant: str, writes: bool) -> Access:
        try:
            return await self._credentials.of(tenant)
        except (NotConnected, SecretMissing) as error:
            if not writes:
                raise
            raise Failed(Later(str(error), down=True)) from None
        except SecretsUnavailable as error:
            raise Failed(Later(str(error), down=True)) from None

    async def _renewed(self, tenant: str, access: Access) -> bool:
        try:
            return await self._credentials.refused(tenant, access)
        except (NotConnected, SecretMissing, SecretsUnavailable):
            return False

    async def _ask(
        self, build: Callable[[], httpx.Request], access: Access, path: str, writes: bool, timeout: float
    ) -> httpx.Response:
        """Send it and read all of the answer, whatever that is. Raises Failed."""
        if not path.startswith("/") or path.startswith("//"):
            raise Failed(Refused(f"{path[:QUOTED]!r} is no path of {self.name}"))
        try:
            request = build()
        except (ValueError, TypeError, OverflowError, httpx.InvalidURL) as error:
            raise Failed(Refused(f"it cannot be sent: {type(error).__name__}: {hide(str(error), access)}")) from None
        request.headers.pop("cookie", None)  # the client is shared: what a vendor set for one tenant is not for others
        try:
            async with asyncio.timeout(timeout):
                answer = await self._client.send(request, stream=True, auth=None, follow_redirects=False)
                try:
                    return await whole(answer)
                finally:
                    await answer.aclose()
        except _TooLong:
            reason = f"{self.name} answered with more than {MAX_BODY:,} bytes"
            raise Failed(Unknown(reason) if writes else Refused(reason)) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Failed(Later(self._heard(error, access), down=True)) from None
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise Failed(Refused(self._heard(error, access))) from None
        except (httpx.HTTPError, TimeoutError) as error:
            reason = self._heard(error, access)
            raise Failed(Unknown(reason) if writes else Later(reason, down=True)) from None

    def _heard(self, error: Exception, access: Access) -> str:
        return f"{self.name}: {type(error).__name__}: {hide(str(error), access)}"[: 2 * QUOTED]

    def _judge(self, response: httpx.Response, access: Access, writes: bool) -> None:
        """Raises Failed unless the answer is a success; _TokenRefused when it is about the access."""
        status = response.status_code
        if response.is_success and not any(each.fits(status, each.code) for each in self._faults):
            return
        code = self._found_code(response)
        means = next((each.means for each in self._faults if each.fits(status, code)), None) or _usual(status, writes)
        if means is None:
            return
        reason = f"HTTP {status}{f' {hide(code, access)}' if code else ''}: {hide(said(response), access)}"
        if means == "token":
            raise _TokenRefused(reason, code)
        raise Failed(
            _delivery(means, reason, self._seconds(response), writes),
            status=status,
            code=code,
            missing=means == "missing",
            response=response,
        )

    def _found_code(self, response: httpx.Response) -> str | None:
        try:
            code = self._code_of(response)
        except Exception:  # what a vendor answers has no shape that could be relied on
            return None
        return None if code is None else str(code)[:LONGEST_CODE]

    def _seconds(self, response: httpx.Response) -> float | None:
        try:
            return self._wait_of(response)
        except Exception:  # as above
            return None


class _TooLong(Exception):
    """An answer has no end."""


class _TokenRefused(Exception):
    """The answer says that the access is not good."""

    def __init__(self, reason: str, code: str | None) -> None:
        self.reason = reason
        self.code = code
        super().__init__(reason)


def _usual(status: int, writes: bool) -> Means | None:
    """What a status means that no table has; None is a success."""
    if 200 <= status < 300:
        return None
    if status == 401:
        return "token"
    if status == 429:
        return "slow_down"
    if status >= 500:
        return "unknown" if writes else "down"
    return "refused"


def _delivery(means: Means, reason: str, after: float | None, writes: bool) -> Refused | Later | SlowDown | Unknown:
    match means:
        case "later":
            return Later(reason, after)
        case "down":
            return Later(reason, after, down=True)
        case "slow_down":
            return SlowDown(reason, after)
        case "unknown":
            return Unknown(reason) if writes else Later(reason, after, down=True)
        case _:
            return Refused(reason)


async def whole(answer: httpx.Response) -> httpx.Response:
    """The answer with its body, unpacked and at most MAX_BODY long."""
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            raise _TooLong
    kept = [
        (name, value)
        for name, value in answer.headers.multi_items()
        if name not in ("content-encoding", "content-length", "transfer-encoding")
    ]
    return httpx.Response(answer.status_code, headers=kept, content=bytes(body), request=answer.request)


def said(response: httpx.Response) -> str:
    """What an answer says in words, on one line: its ``message`` where it is JSON and has one, else the text itself."""
    text = response.content[: 64 * QUOTED].decode(errors="replace")
    try:
        found = json_text.loads(response.content) if len(response.content) <= 64 * QUOTED else None
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, dict):
        for name in ("message", "error_description", "error", "detail"):
            if isinstance(word := found.get(name), str) and word:
                text = word
                break
            if isinstance(word, list) and word and all(isinstance(each, str) for each in word):
                text = "; ".join(word)
                break
    return " ".join("".join(each if each.isprintable() else " " for each in text[: 4 * QUOTED]).split())[:QUOTED]


def hide(text: str, access: Access) -> str:
    """``text`` without what the access's headers hold."""
    for value in access.headers.values():
        for part in {value, value.rpartition(" ")[2]}:
            if len(part) >= HIDDEN:
                text = text.replace(part, "…")
    return text
