"""Words of alerts: keys to be typed, links, commands to be pasted, and strangers' text that nobody obeys."""

from __future__ import annotations

from hashlib import sha256
from shlex import quote as shell_quote
from urllib.parse import quote as url_quote
from urllib.parse import urlencode

LONGEST_KEY = 200
LONGEST_TEXT = 2000


def key_of(rule: str, subject: str, tenant: str | None = None) -> str:
    """What an alert is about, for people to type: never too long, and one for each: an ``@`` stands before a tenant."""
    named = [_typed(each).replace("@", "%40") for each in (subject, *([tenant] if tenant is not None else []))]
    return _short(rule, "@".join(named))


def key_as_named(rule: str, name: str) -> str:
    """The same of what has no tenants and a name with ``@`` of its own."""
    return _short(rule, _typed(name))


def _typed(name: str) -> str:
    return name.replace("%", "%25").replace(" ", "%20")


def _short(rule: str, name: str) -> str:
    key = f"{rule}:{name}"
    if len(key.encode("utf-8", "replace")) <= LONGEST_KEY and key.isprintable():
        return key
    return f"{rule}:{sha256(key.encode('utf-8', 'backslashreplace')).hexdigest()[:16]}"


def path(page: str, **wanted: str | None) -> str:
    """A page of the dashboard, with what is to be seen there."""
    said = urlencode({name: value for name, value in wanted.items() if value}, errors="replace")
    return f"{page}?{said}" if said else page


def part_of_path(name: str) -> str:
    """A stranger's name as one part of a path."""
    return url_quote(name, safe="", errors="replace")


def harmless(text: str, most: int = 200) -> str:
    """A stranger's text for a message: one line, nothing that a terminal or a chat would obey, and not long."""
    plain = (
        " ".join(printable(text[: most * 4]).split())
        .replace("<", "‹")
        .replace(">", "›")
        .replace("@", "＠")
        .replace("`", "'")
    )
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def span(seconds: float) -> str:
    """Seconds for people."""
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def counted(n: int, what: str) -> str:
    """``1 effect``, ``1,200 effects``."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def search(handler: str, tenant: str | None) -> str:
    """The command that finds what a handler's executions failed of."""
    fields = {"level": "error", "handler": handler, "tenant": tenant, "since": "1h"}
    words = [f"{name}:{_word(value)}" for name, value in fields.items() if value]
    return f"circuit-script logs {shell_quote(' '.join(words))}"


def _word(value: str) -> str:
    """A value of the search box."""
    return value if value.isprintable() and " " not in value else f'"{value.replace(chr(34), " ")}"'


def with_options(**wanted: str | None) -> str:
    """Options of a command, safe to be pasted."""
    return "".join(f" --{name} {shell_quote(value)}" for name, value in wanted.items() if value)


def printable(text: str) -> str:
    """Without what a terminal obeys and a database refuses."""
    return "".join(each if each.isprintable() else " " for each in text[:LONGEST_TEXT])
