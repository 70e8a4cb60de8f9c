"""Expressions of Python as text, as ruff formats them, whatever its width: what fits in 88 columns stands on one line,
all else is broken at a comma that says so.
"""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 88  # columns; ruff's own unless somebody says otherwise
STEP = "    "


@dataclass(frozen=True, slots=True)
class Group:
    """``head`` with its parts in brackets, and what follows them, as in ``list[Literal["a"]] | None``."""

    head: str
    parts: tuple[Part, ...]
    brackets: str = "[]"
    after: str = ""


Part = str | Group


def flat(part: Part) -> str:
    """On one line."""
    if isinstance(part, str):
        return part
    inner = ", ".join(flat(each) for each in part.parts)
    return f"{part.head}{part.brackets[0]}{inner}{part.brackets[1]}{f' {part.after}' if part.after else ''}"


def fits(text: str) -> bool:
    """Whether it is narrow enough. A character that is no ASCII may take two columns."""
    return sum(1 if each.isascii() else 2 for each in text) <= WIDTH


def laid(part: Part, indent: str, before: str = "", behind: str = "", *, broken: bool = False) -> str:
    """As many lines as are needed, between ``before`` on the first and ``behind`` on the last; ``broken``: not one."""
    line = f"{indent}{before}{flat(part)}{behind}"
    if isinstance(part, str) or (fits(line) and not broken):
        return line
    deeper = indent + STEP
    # In a list's brackets a comma would make a tuple of one part: what is within it says that it is broken.
    alone = len(part.parts) == 1 and part.brackets == "[]"
    lines = [laid(each, deeper, behind="" if alone else ",", broken=alone) for each in part.parts]
    after = f"\n{indent}{part.after}" if part.after else ""
    last = f"{indent}{part.brackets[1]}{after}{behind}"
    return "\n".join([f"{indent}{before}{part.head}{part.brackets[0]}", *lines, last])


def quoted(text: str) -> str:
    """A literal that is this text, with the quotes that ruff likes; what cannot be seen, or could turn a line around,
    is escaped."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return quote + "".join(_escaped(each, quote) for each in text) + quote


def remark(text: str, most: int = 40) -> str:
    """A stranger's words for a comment, in quotes and on one line, without what a tool would obey in a comment."""
    return quoted(text if len(text) <= most else text[: most - 1] + "…").replace("#", "\\x23")


def _escaped(sign: str, quote: str) -> str:
    if sign in ("\\", quote):
        return f"\\{sign}"
    if sign.isprintable():
        return sign
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
