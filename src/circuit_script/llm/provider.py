"""Who answers: OpenAI, or whoever speaks its wire (POST …/chat/completions). The key stays on this side.

https://platform.openai.com/docs/api-reference/chat, https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Any

import httpx
import msgspec

from circuit_script.clock import now
from circuit_script.errors import RequestRefused
from circuit_script.llm.words import Words, words_of

MAX_ANSWER = 8 * 1024 * 1024  # bytes of one answer, streamed ones included
MAX_TOLD = 300  # characters of a provider's error that are passed on
CONNECT = 10.0  # seconds
LONGEST_WAIT = 86_400.0
# Statuses of which it is certain that nothing was answered, and so nothing billed. Not among them: 502, 504 and their
# kin, which a proxy says while the model may have worked.
UNBILLED_5XX = frozenset({500, 503, 529})
BILLED_4XX = frozenset({408, 499})  # the time was up, or the caller gone, and the model may have worked until then
FILTERED = "content_filter"  # the code of a refusal for which the prompt was read, and billed
PASSING = frozenset({409, 429, *UNBILLED_5XX})  # that may be gone in a moment


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the provider says that it counted."""

    input: int
    output: int
    cached: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """A whole answer. ``tokens`` is None when it does not say what it counted; ``words`` is what was said, without
    ids and times."""

    body: bytes
    words: Words
    tokens: Tokens | None
    model: str | None


class Refusal(Exception):
    """The provider did not answer, and ``billed`` says whether it may charge for it all the same.

    ``after`` are the seconds that it asks to wait; ``passing`` that trying again may help.
    """

    def __init__(
        self, reason: str, *, status: int = 0, billed: bool, passing: bool, after: float | None = None
    ) -> None:
        self.reason = reason
        self.status = status
        self.billed = billed
        self.passing = passing
        self.after = after
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Provider:
    """One address. ``key`` None: it asks for none; ``missing`` names the environment variable that should hold it and
    does not; ``fault`` is what else is wrong with the key. With ``openai`` it takes what only OpenAI knows."""

    name: str
    url: str
    models: tuple[str, ...]
    client: httpx.AsyncClient = field(repr=False)
    key: str | None = field(default=None, repr=False)
    missing: str = ""
    fault: str = ""
    openai: bool = False

    def serves(self, model: str) -> bool:
        return any(fnmatchcase(model, each) for each in self.models)

    def body(self, asked: Mapping[str, Any], model: str, max_tokens: int, stream: bool) -> bytes:
        """The request as it is sent. OpenAI's project may have a dearer tier as its default, so ours is said."""
        sent = {**asked, "model": model}
        if self.openai:
            sent |= {"max_completion_tokens": max_tokens, "service_tier": asked.get("service_tier", "default")}
        else:
            sent |= {"max_tokens": max_tokens}
        if stream:
            sent |= {"stream": True, "stream_options": {"include_usage": True}}
        return msgspec.json.encode(sent)

    async def complete(self, body: bytes, timeout: float) -> Said:
        """One whole answer. Raises Refusal."""
        async with self._asked(body, timeout) as response:
            received = bytearray()
            with _reading(timeout):
                async for piece in response.aiter_bytes():
                    received += piece
                    _hold(len(received))
            try:
                parsed = msgspec.json.decode(received)
            except (msgspec.DecodeError, UnicodeDecodeError):
                parsed = None
            if not isinstance(parsed, dict) or not isinstance(parsed.get("choices"), list):
                raise Refusal(f"{self.name} answered what is no chat completion", billed=True, passing=False)
            words = words_of(parsed["choices"])
            return Said(bytes(received), words, tokens_of(parsed, spoke=words.spoke), _model(parsed))

    @contextlib.asynccontextmanager
    async def streamed(self, body: bytes, timeout: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """The data of a stream's events, one by one, without the last "[DONE]". Raises Refusal, also in between."""
        async with self._asked(body, timeout) as response:
            yield _events(response, timeout)

    @contextlib.asynccontextmanager
    async def _asked(self, body: bytes, timeout: float) -> AsyncIterator[httpx.Response]:
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        headers |= {"authorization": f"Bearer {self.key}"} if self.key else {}
        patience = httpx.Timeout(timeout, connect=min(CONNECT, timeout), pool=min(CONNECT, timeout))
        url = f"{self.url.rstrip('/')}/chat/completions"
        request = self.client.build_request("POST", url, headers=headers, content=body, timeout=patience)
        try:
            response = await self.client.send(request, stream=True)
        except RequestRefused as refused:  # a trial's client reaches nobody
            raise Refusal(refused.detail.removesuffix("."), billed=False, passing=False) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            why = f"{self.name} cannot be reached: {type(error).__name__}: {error}"
            raise Refusal(why, billed=False, passing=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Refusal(f"{self.name} broke off: {type(error).__name__}", billed=True, passing=False) from None
        try:
            if response.status_code != 200:
                raise await self._refusal(response)
            yield response
        finally:
            await response.aclose()

    async def _refusal(self, response: httpx.Response) -> Refusal:
        status = response.status_code
        told, code = "", None
        with contextlib.suppress(httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError, Refusal):
            text = bytearray()
            async for piece in response.aiter_bytes():
                text += piece
                _hold(len(text))
            parsed = msgspec.json.decode(text)
            error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
            if isinstance(error, dict):
                told, code = str(error.get("message") or ""), error.get("code")
        if self.key:
            told = told.replace(self.key, "…")
        told = told[:MAX_TOLD]
        reason = f"{self.name} answered {status}" + (f": {told}" if told else "")
        return Refusal(
            reason,
            status=status,
            billed=_may_be_billed(status, code),
            passing=status in PASSING and code != "insufficient_quota",
            after=_retry_after(response.headers.get("retry-after")),
        )


def _may_be_billed(status: int, code: Any) -> bool:
    if status in BILLED_4XX or code == FILTERED:
        return True
    return not (300 <= status < 500 or status in UNBILLED_5XX)


def tokens_of(parsed: Mapping[str, Any], *, spoke: bool) -> Tokens | None:
    """The usage that a completion, or the last chunk of a stream, carries. None when it does not say what was used: a
    prompt has tokens, and so has an answer that ``spoke``.

    Some count what a model thinks beside ``completion_tokens``: then it is in the total, or in the details alone.
    """
    usage = parsed.get("usage")
    if not isinstance(usage, dict):
        return None
    read, made = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if not read or made is None:
        return None
    inner = usage.get("completion_tokens_details")
    thought = (_count(inner.get("reasoning_tokens")) if isinstance(inner, dict) else None) or 0
    total = _count(usage.get("total_tokens")) or 0
    made = max(made, total - read, made + thought if thought > made else 0)
    if not made and spoke:
        return None
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    cached, written = _count(details.get("cached_tokens")), _count(details.get("cache_write_tokens"))
    return Tokens(read, made, cached or 0, written or 0)


def chunk_of(data: bytes) -> Mapping[str, Any]:
    """One event of a stream, empty when it is none that we know. Raises Refusal for what is no JSON: a child may read
    more into it than we do."""
    try:
        parsed = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal("an event of it cannot be read", billed=True, passing=False) from None
    return parsed if isinstance(parsed, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _model(parsed: Mapping[str, Any]) -> str | None:
    model = parsed.get("model")
    return model[:200] if isinstance(model, str) else None


async def _events(response: httpx.Response, timeout: float) -> AsyncIterator[bytes]:
    """The data of server-sent events. Ends at "[DONE]"; raises Refusal when the stream ends without it."""
    size = 0
    data: list[bytes] = []
    rest = b""
    with _reading(timeout):
        async for piece in response.aiter_bytes():
            size += len(piece)
            _hold(size)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                line = line.removesuffix(b"\r")
                if line.startswith(b"data:"):
                    data.append(line[5:].removeprefix(b" "))
                elif not line and data:
                    whole, data = b"\n".join(data), []
                    if whole == b"[DONE]":
                        return
                    yield whole
    raise Refusal("the stream was cut off", billed=True, passing=False)


@contextlib.contextmanager
def _reading(timeout: float) -> Iterator[None]:
    """What goes wrong once the provider has begun to answer may be billed."""
    try:
        yield
    except httpx.TimeoutException:
        raise Refusal(f"the answer did not come within {timeout:.1f} s", billed=True, passing=False) from None
    except httpx.HTTPError as error:
        raise Refusal(f"the answer was cut off: {type(error).__name__}", billed=True, passing=False) from None


def _hold(size: int) -> None:
    if size > MAX_ANSWER:
        raise Refusal(f"the answer is longer than {MAX_ANSWER:,} bytes", billed=True, passing=False)


def _retry_after(said: str | None) -> float | None:
    """Seconds of a Retry-After, which are a number or a date (RFC 9110, section 10.2.3)."""
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - now()).total_seconds()
        except (TypeError, ValueError):
            return None
    return min(max(0.0, seconds), LONGEST_WAIT) if seconds == seconds else None
