"""``http``: an httpx client whose requests are made by the broker. Imported only by who uses it."""

from __future__ import annotations

from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from circuit_script.errors import CalloutRefused, IrreversibleRefused, QuotaExceeded
from circuit_script.execution.authoring.calls import put_off, refusal_of
from circuit_script.execution.authoring.secret import marked, taken_out
from circuit_script.execution.decisions import Decision
from circuit_script.execution.session import Session, active, current_record, session

FAILURES = {
    name: kind
    for name, kind in vars(httpx).items()
    if isinstance(kind, type) and issubclass(kind, httpx.TransportError | httpx.DecodingError)
}


class HttpRefused(CalloutRefused, httpx.ConnectError):
    """The callout was refused."""

    def __init__(self, detail: str, cure: str, page: str, retry_after: float | None, request: httpx.Request) -> None:
        CalloutRefused.__init__(self, detail, cure=cure, page=page, retry_after=retry_after)
        self._request = request  # where httpx keeps it


class HttpIrreversible(IrreversibleRefused, httpx.ConnectError):
    """A model chose a request that changes something elsewhere, and untrusted text was read before."""

    def __init__(self, detail: str, cure: str, request: httpx.Request) -> None:
        IrreversibleRefused.__init__(self, detail, cure=cure)
        self._request = request  # where httpx keeps it


class HttpQuotaExceeded(HttpRefused, QuotaExceeded):
    """The tenant's quota is used up."""

    page = QuotaExceeded.page


class HttpQuotaDeferred(HttpQuotaExceeded, Decision):
    """The tenant's quota is used up.

    Nobody has to catch it: left alone, it puts off the record of ``context.record`` around it, or the whole batch.
    """

    def __init__(self, detail: str, cure: str, page: str, retry_after: float | None, request: httpx.Request) -> None:
        super().__init__(detail, cure, page, retry_after, request)
        self.after, self.reason = put_off(retry_after), detail


class BrokerTransport(httpx.AsyncBaseTransport):
    """Has each request made by the broker. It keeps no connection, so that any loop may use it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises RequestRefused, LimitExceeded, and httpx's own errors for what got no answer."""
        body = await request.aread()
        url = str(request.url)
        if marked(url) or marked(body):
            raise ValueError("a secret may stand in a header, and nowhere else")
        headers, secrets = taken_out((_text(name), _text(value)) for name, value in request.headers.raw)
        asked = {
            "method": request.method,
            "url": url,
            "headers": headers,
            "body": body or None,
            "timeout": _seconds(request.extensions.get("timeout")),
            "retries": request.extensions.get("retries"),
            "record": current_record.get(),
        }
        if secrets:
            asked["secrets"] = secrets
        answer = await session().request("http", asked, dict[str, Any])
        if (refusal := refusal_of(answer)) is not None:
            if refusal[2] == IrreversibleRefused.page:
                raise HttpIrreversible(refusal[0], refusal[1], request)
            kind = HttpRefused
            if refusal[2] == QuotaExceeded.page:
                kind = HttpQuotaDeferred if answer.get("defer") else HttpQuotaExceeded
            raise kind(*refusal, request)
        if (failed := answer.get("failed")) is not None:
            raise FAILURES.get(failed, httpx.TransportError)(answer["said"], request=request)
        return httpx.Response(answer["status"], headers=answer["headers"], content=answer["body"], request=request)


class Http(httpx.AsyncClient):
    """Calls to the outside through the broker, each counted as a callout. It is always open: nothing has to be closed.

    A request may take the time that the execution has left, unless ``timeout`` is less; it bounds the whole call, with
    its repetitions. Cookies last as long as the execution.
    """

    def __init__(self) -> None:
        self._jars: WeakKeyDictionary[Session, httpx.Cookies] = WeakKeyDictionary()
        super().__init__(
            transport=BrokerTransport(), timeout=None, trust_env=False, headers={"accept-encoding": "gzip"}
        )

    @property
    def cookies(self) -> httpx.Cookies:
        """Those of the running execution."""
        running = active()
        if running is None:
            return httpx.Cookies()
        if (jar := self._jars.get(running)) is None:
            jar = self._jars[running] = httpx.Cookies()
        return jar

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        if (running := active()) is not None:
            self._jars[running] = httpx.Cookies(cookies)

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """It stays open for the next execution."""

    async def aclose(self) -> None:
        """It stays open for the next execution."""


def _seconds(timeout: Any) -> float | None:
    """The longest of httpx's four timeouts; None when one of them is without end."""
    parts = list(timeout.values()) if isinstance(timeout, dict) else []
    return None if not parts or None in parts else max(parts)


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")


http = Http()
