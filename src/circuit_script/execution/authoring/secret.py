"""``secret``: a mark for a value that the child never sees. The broker puts the value there when a request leaves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
# Random, so that no text of a stranger is taken for a mark. It is made with the first one, and never leaves.
_SIGN = f"secret-{os.urandom(12).hex()}-"
_MARK = re.compile(rf"{_SIGN}<({_NAME.pattern})>")

Header = tuple[str, str]
Place = tuple[int, int, str]  # of which header, at which of its characters, the secret of which name
_made = False


def secret(name: str, *, prefix: str = "") -> str:
    """The secret of that name of the running execution's tenant, for a header of ``http``, after ``prefix``:

        await http.post(url, headers={"authorization": secret("crm.key", prefix="Bearer ")})

    What you get is a mark: the value is put in when the request leaves, for the hosts that the secret may be sent to
    (``circuit-script secrets set NAME --hosts …``), and taken out of what they answer. Raises ValueError for no name.
    """
    global _made
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name of a secret")
    _made = True
    return f"{prefix}{_SIGN}<{name}>"


def marked(text: str | bytes | None) -> bool:
    """Whether a mark stands there."""
    if not _made or not text:
        return False
    return _SIGN.encode() in text if isinstance(text, bytes) else _SIGN in text


def taken_out(headers: Iterable[Header]) -> tuple[list[Header], list[Place]]:
    """The headers without marks, and where they stood."""
    if not _made:
        return list(headers), []
    bare: list[Header] = []
    places: list[Place] = []
    for number, (name, value) in enumerate(headers):
        kept, end = "", 0
        for mark in _MARK.finditer(value):
            kept += value[end : mark.start()]
            end = mark.end()
            places.append((number, len(kept), mark[1]))
        bare.append((name, kept + value[end:]))
    return bare, places
