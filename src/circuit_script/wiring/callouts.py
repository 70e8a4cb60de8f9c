"""Callouts of a trial: answered with what was said beforehand, in the place of the network."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import msgspec

from circuit_script.errors import RequestRefused


@dataclass(frozen=True, slots=True)
class Callout:
    """One request that a handler made."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is not."""
        return msgspec.json.decode(self.body)


@dataclass(slots=True)
class Mock:
    """One prepared answer. ``calls`` are the requests that got it."""

    method: str
    pattern: re.Pattern[str]
    with_query: bool
    answer: Callable[[Callout], httpx.Response | Awaitable[httpx.Response]]
    times: int | None
    calls: list[Callout]
    loosely: Callable[[Callout], httpx.Response] | None = None  # where ``prepare`` says it again for more records

    def fits(self, request: httpx.Request) -> bool:
        if self.method not in ("*", request.method) or (self.times is not None and len(self.calls) >= self.times):
            return False
        return self.meets(request)

    def meets(self, request: httpx.Request) -> bool:
        """Whether it is for this address."""
        url = str(request.url)
        return any(self.pattern.fullmatch(each) for each in {url, url if self.with_query else url.partition("?")[0]})


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was said beforehand, to say it again elsewhere."""

    mocks: tuple[Mock, ...] = ()
    hosts: frozenset[str] = frozenset()


class Callouts(httpx.AsyncBaseTransport):
    """A transport that never leaves this process: what is not mocked is refused, and remembered.

    ``refusal`` ends the sentence "GET https://… is refused: ".
    """

    def __init__(self, refusal: str) -> None:
        self.made: list[Callout] = []
        self.refused: list[str] = []
        self._refusal = refusal
        self._mocks: list[Mock] = []
        self._hosts: set[str] = set()
        self.breaks: Callable[[str], str] = lambda url: ""  # "callout" or "model" for a request that shall fail

    def mock(
        self,
        method: str,
        url: str | re.Pattern[str],
        *,
        json: Any = None,
        body: bytes | str = b"",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> Mock:
        """Answer requests of ``method`` ("*" is any) to ``url`` from now on.

        In a text ``*`` stands for anything, and without a ``?`` in it the query does not count; a compiled pattern must
        match the whole address. ``json`` may be a function of the Callout. After ``times`` answers the mock is used up;
        of several that fit, the latest answers.
        """

        def answer(callout: Callout) -> httpx.Response:
            if json is None:
                return httpx.Response(status, headers=dict(headers or {}), content=body)
            value = json(callout) if callable(json) else json
            sent = {"content-type": "application/json", **(headers or {})}
            return httpx.Response(status, headers=sent, content=msgspec.json.encode(value))

        text = isinstance(url, str)
        pattern = re.compile(re.escape(url).replace(r"\*", ".*")) if isinstance(url, str) else url
        mock = Mock(method.upper(), pattern, not text or "?" in str(url), answer, times, [])
        self._mocks.append(mock)
        return mock

    def answer_by(
        self,
        method: str,
        url: str,
        answer: Callable[[Callout], httpx.Response | Awaitable[httpx.Response]],
        calls: list[Callout],
    ) -> Mock:
        """Answer requests to this very address with what the function gives; it is called once the request is among
        ``calls``, which several addresses may share."""
        mock = Mock(method, re.compile(re.escape(url)), False, answer, None, calls)
        self._mocks.append(mock)
        return mock

    @property
    def prepared(self) -> Prepared:
        """What is mocked and allowed now."""
        return Prepared(tuple(self._mocks), frozenset(self._hosts))

    def prepare(self, prepared: Prepared) -> None:
        """Answer as there, as often as is asked; its mocks hear nothing of it."""
        self._mocks += [
            replace(each, times=None, calls=[], answer=each.loosely or each.answer) for each in prepared.mocks
        ]
        self._hosts |= prepared.hosts

    def allow_host(self, host: str) -> None:
        """Let libraries that speak to the outside by themselves reach this host."""
        self._hosts.add(host)

    def lets_out(self, url: str) -> bool:
        """Whether a library may send this request by itself: its host is allowed, and nothing is mocked for it."""
        request = httpx.Request("*", url)
        return request.url.host in self._hosts and not any(mock.meets(request) for mock in self._mocks)

    def check_connection(self, asked: Mapping[str, Any]) -> None:
        """Raises RequestRefused for a connection that a library opens by itself, past ``http``; ``names`` of it are
        what was looked up, the latest first."""
        host = str(asked.get("host"))
        latest = [str(name) for name in asked.get("names") or ()][:1]
        if not self._hosts.isdisjoint((host, *latest)):
            return
        self.refused.append(f"a connection to {host}:{asked.get('port')}")
        raise RequestRefused(f"a connection to {host} is refused: {self._refusal}.")

    async def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a library's own request gets. Raises RequestRefused for what is not mocked."""
        headers = [(str(name), str(value)) for name, value in asked.get("headers") or ()]
        request = httpx.Request(
            str(asked["method"]), str(asked["url"]), headers=_unframed(headers), content=asked.get("body") or b""
        )
        try:
            response = await self.handle_async_request(request)
        except httpx.ConnectError as error:
            raise RequestRefused(f"{request.method} {request.url}: {error}.") from None
        pairs = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.headers.raw]
        return {"status": response.status_code, "headers": pairs, "body": await response.aread()}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Called by httpx, in the parent. Raises RequestRefused for what is not mocked."""
        body = await request.aread()
        callout = Callout(request.method, str(request.url), dict(request.headers), body)
        self.made.append(callout)
        match self.breaks(callout.url):
            case "model":  # certain not to be billed; nobody repeats it before the handler hears of it
                raise RequestRefused("the model cannot be reached, as this test wants it.")
            case "callout":
                raise httpx.ConnectError("the connection broke, as this test wants it", request=request)
        for mock in reversed(self._mocks):
            if mock.fits(request):
                mock.calls.append(callout)
                given = mock.answer(callout)
                answer = await given if isinstance(given, Awaitable) else given
                # The broker reads raw bytes as they come from a socket; a finished body has none.
                return httpx.Response(answer.status_code, headers=answer.headers, stream=_Bytes(answer.content))
        self.refused.append(f"{request.method} {request.url}")
        raise RequestRefused(f"{request.method} {request.url} is refused: {self._refusal}.")


def _unframed(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Headers without the length that the body had: a large one is not told."""
    return [pair for pair in headers if pair[0].lower() not in ("content-length", "transfer-encoding")]


class _Bytes(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content
