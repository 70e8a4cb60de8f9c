"""What can be told of a message before it leaves: whether its address can be one, and how long it is.

Numbers are E.164 (a plus, at most 15 digits). SMS segments are 3GPP TS 23.038's: 160 characters of GSM-7, or 153 where
there are several; 70 and 67 units of UTF-16 where one character is not among those of GSM-7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

MESSENGERS = frozenset({"twilio", "resend", "slack", "vapi"})  # connectors to those who carry messages
USUAL = "usual"  # the target of what goes out under the tenant's own sender

MOST_SMS = 1600  # characters of one text message
MOST_RECIPIENTS = 50  # of one e-mail
MOST_SUBJECT = 998  # characters: of a line of an e-mail
MOST_MAIL = 4 * 1024 * 1024  # bytes of text and HTML together
MOST_ATTACHMENTS = 20
MOST_ATTACHED = 10 * 1024 * 1024  # bytes of all attachments, as they are
MOST_HEADERS = 20
MOST_TAGS = 20
MOST_SLACK = 40_000  # characters
MOST_BLOCKS = 50

_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?=.{{1,254}}\Z)(?=[^@]{{1,64}}@){_LOCAL}@(?:{_LABEL}\.)+[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9]")
_NAMED = re.compile(r"(?P<name>[^<>\"\x00-\x1f\x7f]{0,100}|\"[^\"<>\x00-\x1f\x7f]{0,100}\") ?<(?P<address>[^<>]+)>")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("^{}\\[~]|€\f")  # each of them takes the place of two


class Wrong(ValueError):
    """It cannot be sent like this; says what is wrong, and which of it."""


@dataclass(frozen=True, slots=True)
class Counted:
    """How an SMS goes: ``units`` are septets, or units of UTF-16."""

    encoding: Literal["GSM-7", "UCS-2"]
    units: int
    segments: int


def count(body: str) -> Counted:
    """The segments of a text message."""
    if all(each in _BASIC or each in _EXTENDED for each in body):
        sizes = [2 if each in _EXTENDED else 1 for each in body]
        return Counted("GSM-7", sum(sizes), _segments(sizes, 160, 153))
    sizes = [2 if ord(each) > 0xFFFF else 1 for each in body]
    return Counted("UCS-2", sum(sizes), _segments(sizes, 70, 67))


def _segments(sizes: list[int], alone: int, each: int) -> int:
    """A character of two places is not split."""
    if sum(sizes) <= alone:
        return 1
    number, left = 1, each
    for size in sizes:
        if size > left:
            number, left = number + 1, each
        left -= size
    return number


def number(value: object, what: str = "to") -> str:
    """A telephone number as E.164, without the spaces, dots, dashes and brackets that people write. Raises Wrong."""
    text = re.sub(r"[ .()\u00a0-]", "", value) if isinstance(value, str) and len(value) <= 40 else ""
    if _NUMBER.fullmatch(text) is None:
        raise Wrong(f"{what}: {_shown(value)} is no telephone number in E.164, as +15125550123.")
    return text


def address(value: object, what: str = "to") -> str:
    """An e-mail address, alone or as ``Name <name@example.com>``. Raises Wrong."""
    text = value.strip(" ") if isinstance(value, str) else ""
    named = _NAMED.fullmatch(text)
    if _ADDRESS.fullmatch(named["address"] if named else text) is None:
        raise Wrong(f"{what}: {_shown(value)} is no e-mail address.")
    return text


def addresses(value: object, what: str) -> list[str]:
    """One address, or several. Raises Wrong."""
    if value is None:
        return []
    return [address(each, what) for each in ([value] if isinstance(value, str) else _listed(value, what))]


def line(value: object, what: str, most: int) -> str:
    """Text of one line that is not empty. Raises Wrong."""
    if not isinstance(value, str) or not value.strip():
        raise Wrong(f"{what} is empty.")
    if len(value) > most:
        raise Wrong(f"{what} has {len(value):,} characters; {most:,} are the most.")
    if not sendable(value) or any(ord(each) < 32 or ord(each) == 127 for each in value):
        raise Wrong(f"{what} has characters that no line has.")
    return value


def text(value: object, what: str, most: int) -> str:
    """Text that is not empty. Raises Wrong."""
    if not isinstance(value, str) or not value.strip():
        raise Wrong(f"{what} is empty.")
    if len(value) > most:
        raise Wrong(f"{what} has {len(value):,} characters; {most:,} are the most.")
    if not sendable(value) or "\0" in value:
        raise Wrong(f"{what} has characters that cannot be sent.")
    return value


def sendable(value: str) -> bool:
    """Whether it is UTF-8: half a surrogate pair is not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def sms(value: object) -> str:
    """The body of a text message. Raises Wrong."""
    return text(value, "body", MOST_SMS)


def headers(value: object) -> dict[str, str]:
    """Headers of an e-mail. Raises Wrong."""
    found = _mapping(value, "headers", MOST_HEADERS)
    for name, each in found.items():
        if _HEADER.fullmatch(name) is None:
            raise Wrong(f"headers: {_shown(name)} is no name of a header.")
        line(each, f"headers: {name}", MOST_SUBJECT)
    return found


def tags(value: object) -> dict[str, str]:
    """Tags of an e-mail. Raises Wrong."""
    found = _mapping(value, "tags", MOST_TAGS)
    for name, each in found.items():
        for part in (name, each):
            if not isinstance(part, str) or _TAG.fullmatch(part) is None:
                raise Wrong(f"tags: {_shown(part)} has others than ASCII letters, digits, _ and -.")
    return found


def _mapping(value: object, what: str, most: int) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value):
        raise Wrong(f"{what} are a mapping of texts.")
    if len(value) > most:
        raise Wrong(f"{what}: there are {len(value)}; {most} are the most.")
    return dict(value)


def _listed(value: object, what: str) -> list[Any]:
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise Wrong(f"{what}: {_shown(value)} is no e-mail address.")
    return list(value)


def _shown(value: object) -> str:
    return ascii(value)[:80]
