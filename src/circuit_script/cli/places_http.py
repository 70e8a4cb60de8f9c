"""A platform that is asked by HTTPS, with a person's token: for whoever cannot reach its database, and should not.

The token comes from the environment and goes to that address only: no redirect is followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import typer

from circuit_script.cli.output import visible
from circuit_script.cli.places import Going, Place
from circuit_script.errors import ElsewhereAway, ElsewhereRefused, ReleaseRefused, ReleaseUnknown
from circuit_script.releases.figures import Counts
from circuit_script.releases.moving import Move
from circuit_script.releases.sent import MEDIA_TYPE, sent
from circuit_script.releases.standing import Course, Listed, Readiness, Shown, Standing
from circuit_script.releases.store import NewRelease, ReleaseRow

TOKEN = "CIRCUIT_TOKEN"
API = "/api/v1/releases"
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
MOST_LISTED = 200
MOST = 16 * 1024 * 1024  # bytes of an answer
AWAY = frozenset({502, 503, 504})
OLDER = "It answers, but knows nothing of `deploy --to`: an older platform, or no platform at all."
T = TypeVar("T")


class _Item(msgspec.Struct):
    """A release of a list: without its report."""

    id: int
    version: str | None
    digest: str
    platform: str
    author: str
    message: str
    created: datetime
    live: bool
    handlers: int
    executions: int
    errors: int

    @property
    def row(self) -> ReleaseRow:
        return ReleaseRow(
            self.id, self.version, self.digest, self.platform, self.author, self.message, self.created, self.live,
            self.handlers, {}, "",
        )  # fmt: skip


class _Listed(msgspec.Struct):
    items: list[_Item]
    moves: list[Move]


class _Problem(msgspec.Struct):
    detail: str = ""
    reason: str = ""


@dataclass(slots=True)
class ByAddress:
    """To a platform."""

    url: str
    token: str = field(repr=False)
    insecure: bool = False
    _tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def option(self) -> str:
        return f" --to {self.url}{' --insecure' if self.insecure else ''}"

    def ask(self, what: Callable[[Place], Awaitable[T]]) -> T:
        async def reached() -> T:
            if self._tls is None:  # once: it takes 0.1 s
                self._tls = httpx.create_ssl_context()
            headers = {"authorization": f"Bearer {self.token}", "accept-encoding": "identity"}
            async with httpx.AsyncClient(
                base_url=self.url,
                headers=headers,
                verify=self._tls,
                follow_redirects=False,
                timeout=TIMEOUT,
                trust_env=not _is_loopback(urlsplit(self.url).hostname or ""),
            ) as client:
                return await what(Platform(self, client))

        return asyncio.run(reached())


@dataclass(frozen=True, slots=True)
class Platform:
    """The place as its API tells it."""

    by: ByAddress
    client: httpx.AsyncClient

    async def standing(self) -> Standing:
        found = await self._ask("GET", "/live", Standing)
        _check_platform(found.platform)
        return found

    async def find(self, name: str) -> ReleaseRow:
        return (await self._ask("GET", f"/{_part(name)}", Shown)).release

    async def keep(self, new: NewRelease) -> ReleaseRow:
        body = sent(new)
        return await self._ask("POST", "", ReleaseRow, content=body, headers={"content-type": MEDIA_TYPE})

    async def warm_up(self, release: ReleaseRow) -> None:
        await self._ask("POST", f"/{release.id}/warm", dict[str, str])

    async def readiness(self, release: ReleaseRow) -> Readiness:
        return await self._ask("GET", f"/{release.id}/hosts", Readiness)

    async def go_live(self, release: ReleaseRow, going: Going) -> Move:
        watch = None if going.watch is None else going.watch.total_seconds()
        asked = {"expected": going.expected, "kind": going.kind, "reason": going.reason, "watch": watch}
        return await self._ask("POST", f"/{release.id}/live", Move, json=asked)

    async def course(self, move: Move) -> Course:
        return await self._ask("GET", f"/moves/{move.id}", Course)

    async def last_started(self, release: ReleaseRow, since: datetime) -> datetime | None:
        return (await self._ask("GET", f"/{release.id}", Shown, params={"since": since.isoformat()})).last_started

    async def moves(self) -> Sequence[Move]:
        return (await self._ask("GET", "", _Listed)).moves

    async def listed(self, limit: int, since: datetime) -> Listed:
        asked = {"limit": str(min(limit, MOST_LISTED)), "since": since.isoformat()}
        found = await self._ask("GET", "", _Listed, params=asked)
        counts = {each.id: Counts(each.executions, each.errors) for each in found.items}
        return Listed([each.row for each in found.items], counts, found.moves)

    async def shown(self, name: str) -> Shown:
        return await self._ask("GET", f"/{_part(name)}", Shown, params={"whole": "true"})

    async def _ask(self, method: str, path: str, kind: type[T], **more: Any) -> T:
        """One question. Raises what the answer refuses, and ElsewhereAway."""
        body = bytearray()
        try:
            async with self.client.stream(method, f"{API}{path}", **more) as answer:
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > MOST:
                        raise ElsewhereRefused(
                            f"{self.by.name} answers with more than any platform does.", cure=_ADDRESS
                        )
        except httpx.RequestError as error:
            raise _unreachable(self.by, error) from None
        if answer.is_success:
            try:
                found = msgspec.json.decode(body, type=kind)
            except msgspec.DecodeError:
                wrong = f"What {self.by.name} answers is not understood: another version of the platform, or none."
                raise ElsewhereRefused(wrong, cure=_ADDRESS) from None
            return found
        raise _refused(self.by, answer, bytes(body))


_ADDRESS = (
    "Let --to be the address of the platform's gateway, and its version be that of here: circuit-script --version."
)


def by_address(to: str, *, insecure: bool) -> ByAddress:
    """The way to a platform. Raises BadParameter for an address that is none, or gives the token away, and
    ElsewhereRefused without a token."""
    try:
        url = urlsplit(to)
        host, _, _ = url.hostname, url.port, httpx.URL(to)
    except (ValueError, httpx.InvalidURL):
        host = None
    if host is None or url.scheme not in ("http", "https") or url.query or url.fragment or not to.isprintable():
        raise typer.BadParameter("it must be like https://ops.example.com", param_hint="--to")
    if url.username is not None:
        said = f"no name and no password stands in it: the token comes from {TOKEN}"
        raise typer.BadParameter(said, param_hint="--to")
    if url.scheme == "http" and not (insecure or _is_loopback(host)):
        said = (
            "by http:// whoever is on the way can read the token and your app: https://, or --insecure if it is meant"
        )
        raise typer.BadParameter(said, param_hint="--to")
    token = os.environ.get(TOKEN, "").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise ElsewhereRefused(
            f"Who deploys is said by a token, and {TOKEN} {'holds none' if token else 'is not set'}.",
            cure=f"On the host: circuit-script people token NAME laptop --role developer. Here: export {TOKEN}=csp_….",
        )
    return ByAddress(to.rstrip("/"), token, insecure)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_platform(there: str) -> None:
    """What was tested here must be what runs there. Raises ElsewhereRefused unless it is another patch at most."""
    here = version("circuit-script")
    if here.split(".")[:2] == there.split(".")[:2]:
        return
    age = "older" if _number(there) < _number(here) else "newer"
    that = visible(there)[:40]
    cure = f"Test with what runs there: pip install circuit-script=={that}. Or bring both to one version."
    raise ElsewhereRefused(f"The platform there is {age}: {that}, and here is {here}.", cure=cure)


def _number(said: str) -> list[int]:
    return [int(each) if each.isdecimal() else 0 for each in said.split(".")[:2]]


def _part(name: str) -> str:
    """A name as part of a path."""
    return quote(name.strip()[:100], safe="") or "-"


def _unreachable(by: ByAddress, error: httpx.RequestError) -> Exception:
    """A certificate that is refused stays refused; whoever does not answer may come back."""
    said = visible(str(error))[:300].rstrip(".")
    if "CERTIFICATE_VERIFY_FAILED" in said:
        why = said.partition("failed: ")[2].partition(" (_ssl")[0] or said
        cure = "Mend it there; or, if an authority of your own gave it: export SSL_CERT_FILE=authority.pem. "
        return ElsewhereRefused(f"The certificate of {by.name} is refused: {why}.", cure=f"{cure}It is always checked.")
    if isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError):
        return ElsewhereRefused(f"{by.name} cannot be asked: {said}.", cure="See HTTPS_PROXY and NO_PROXY.")
    wrong = f"{by.name} does not answer: {said or type(error).__name__}."
    return ElsewhereAway(wrong, cure="Does it run? On the host: circuit-script status, and /readyz of the gateway.")


def _refused(by: ByAddress, answer: httpx.Response, body: bytes) -> Exception:
    """What an answer says that is none."""
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem()
    said = visible(problem.detail)[:2000]
    match answer.status_code:
        case status if 300 <= status < 400:
            where = visible(answer.headers.get("location", ""))[:200]
            cure = "If that is the platform, say it: --to. The token goes to no other address than the one you name."
            return ElsewhereRefused(f"{by.name} sends on to {where or 'elsewhere'}.", cure=cure)
        case 401:
            cure = (
                f"On the host: circuit-script people tokens. A new one: people token NAME laptop. Then {TOKEN}=csp_…."
            )
            return ElsewhereRefused(f"{by.name} does not know the token: it is wrong, revoked or over.", cure=cure)
        case 403:
            cure = (
                "On the host: circuit-script people grant NAME developer --tenant '*'; the token may be bound to less."
            )
            return ElsewhereRefused(said or f"{by.name} does not allow it.", cure=cure)
        case 404 if problem.reason == "not-found":
            return ReleaseUnknown(said)
        case 404 | 405:
            return ElsewhereRefused(f"{by.name}: {OLDER}", cure=_ADDRESS)
        case 408:
            cure = "The whole request has 30 s: pack less, or deploy from where the line is faster."
            return ElsewhereRefused(f"{by.name} had not got all of it in time.", cure=cure)
        case 409:
            return ReleaseRefused(said)
        case status if status >= 500:
            wrong = f"{by.name} answers {status}{f': {said}' if said else ''}".rstrip(".")
            cure = "Try again; what is wrong there: circuit-script status, on the host."
            return (ElsewhereAway if status in AWAY else ElsewhereRefused)(f"{wrong}.", cure=cure)
        case 413 if not said:
            cure = "Let the proxy there allow bodies of 18 MB."
            return ElsewhereRefused(f"A proxy before {by.name} refuses so large a body.", cure=cure)
        case status:
            return ElsewhereRefused(f"{by.name} refuses it ({status}). {said}".strip(), cure=_ADDRESS)
