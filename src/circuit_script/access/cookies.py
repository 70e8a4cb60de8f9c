"""What a browser sends and is sent: the cookie of a session, and where a request came from."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit

from circuit_script.access.tokens import PREFIX

COOKIE = "circuit_session"
SECURE_COOKIE = "__Host-circuit_session"  # which a browser takes from this very host only, and by https only
CSRF_HEADER = "x-csrf-token"

Header = tuple[bytes, bytes]
_NAMES = frozenset({COOKIE.encode(), SECURE_COOKIE.encode()})
_bearer = b"bearer " + PREFIX.encode()


def cookie_name(*, secure: bool) -> str:
    """``secure`` says that people come by https."""
    return SECURE_COOKIE if secure else COOKIE


def set_cookie(value: str, lasts: float, *, secure: bool) -> str:
    """The header ``Set-Cookie`` of a session; with an empty value the browser forgets it."""
    age = int(lasts) if value else 0
    last = "; Secure" if secure else ""
    return f"{cookie_name(secure=secure)}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{last}"


def read_cookie(header: str | None, *, secure: bool) -> str | None:
    """The session's cookie in a header ``Cookie``; None where there is none, or more than one of that name."""
    wanted = cookie_name(secure=secure)
    parts = [each.strip().partition("=") for each in (header or "").split(";")]
    found = [value for name, _, value in parts if name == wanted]
    return found[0] if len(found) == 1 else None


def without_sessions(headers: Iterable[Header]) -> list[Header]:
    """Headers without what signs a person in: a browser sends its cookies to every page of a host, those of an app,
    too, and no handler gets a credential of ours."""
    found: list[Header] = []
    for name, value in headers:
        if name == b"cookie" and COOKIE.encode() in value:
            parts = [each.strip() for each in value.split(b";")]
            value = b"; ".join(each for each in parts if each.partition(b"=")[0].strip() not in _NAMES)
            if not value:
                continue
        elif name == b"authorization" and b" ".join(value.split()).lower().startswith(_bearer):
            continue
        found.append((name, value))
    return found


def same_csrf(expected: str, given: str | None) -> bool:
    """Compared in a time that tells nothing."""
    return given is not None and hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))


def is_same_origin(origin: str | None, fetch_site: str | None, host: str | None, url: str = "") -> bool:
    """Whether a request comes from a page of ours, by its headers ``Origin``, ``Sec-Fetch-Site`` and ``Host``.

    ``url`` is the address by which people reach us, where it is not ``host``. What no browser sent has no ``Origin``.
    """
    if origin is None:
        return fetch_site in (None, "same-origin", "none")
    try:
        theirs, ours = urlsplit(origin.lower()), urlsplit(url.lower())
        _ = theirs.port
    except ValueError:
        return False
    if theirs.scheme not in ("http", "https") or not theirs.netloc or theirs.path or theirs.query or "@" in origin:
        return False
    if url and (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc):
        return True
    return ours.scheme != "https" and bool(host) and theirs.netloc == (host or "").lower()
