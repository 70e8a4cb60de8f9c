"""``/healthz``, ``/readyz``, ``/api/status`` and the live status page at ``/status`` and ``/``."""

from __future__ import annotations

import base64
import ipaddress
import re
from hashlib import sha256
from importlib.resources import files

import msgspec
import psycopg
from fastapi import APIRouter, Depends, HTTPException, Request, Response

from circuit_script.events.status import StatusReader

_PAGE = (files("circuit_script.gateway") / "status.html").read_bytes()
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def status_routes(reader: StatusReader) -> APIRouter:
    """The routes. The page and its figures are for an operator on this host: they cross tenants."""
    router = APIRouter()
    local = [Depends(only_this_host)]
    page_headers = {
        "content-security-policy": _policy(),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> dict[str, str]:
        """The ledger can be reached."""
        try:
            await reader.ready()
        except psycopg.Error:
            raise HTTPException(503, "The database is away.") from None
        return {"status": "ready"}

    @router.get("/api/status", dependencies=local)
    async def status() -> Response:
        """What the road is doing now."""
        try:
            found = await reader.read()
        except psycopg.Error:
            raise HTTPException(503, "The database is away.") from None
        body = msgspec.json.encode(found)
        return Response(body, media_type="application/json", headers={"cache-control": "no-store"})

    @router.get("/status", dependencies=local, include_in_schema=False)
    @router.get("/", dependencies=local, include_in_schema=False)
    async def page() -> Response:
        return Response(_PAGE, media_type="text/html; charset=utf-8", headers=page_headers)

    return router


def only_this_host(request: Request) -> None:
    """Refuse everybody else: other hosts, what a proxy passes on, and names that a web page rebound to us."""
    peer = request.client.host if request.client else ""
    names = request.headers.getlist("host")
    if len(names) > 1:
        raise HTTPException(400, "The request has more than one Host header.")
    name = names[0] if names else ""
    bare = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    direct = not any(header in request.headers for header in _FORWARDED)
    if not (direct and _is_loopback(peer) and (bare == "localhost" or _is_loopback(bare))):
        raise HTTPException(403, "The status page is for this host only: open it by a loopback address.")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _policy() -> str:
    """The page may run its own script and style, talk to its own origin, and nothing else."""

    def hash_of(tag: bytes) -> str:
        found = re.search(rb"<%b>(.*?)</%b>" % (tag, tag), _PAGE, re.DOTALL)
        return f"'sha256-{base64.b64encode(sha256(found[1]).digest()).decode()}'" if found else "'none'"

    return (
        f"default-src 'none'; script-src {hash_of(b'script')}; style-src {hash_of(b'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
