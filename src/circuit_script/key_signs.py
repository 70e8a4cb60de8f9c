"""What keys and passwords look like, in files that others will read: of a release, and beside the tests."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

PEM = tuple(f"-----BEGIN {kind}PRIVATE KEY" for kind in ("", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ", "PGP "))
ACCOUNT = ('{"type": "service_account"', '{\n  "type": "service_account"', '{\n    "type": "service_account"')


def _as_base64(text: str) -> bytes:
    """How it begins where somebody has packed it, for a variable of the environment, say."""
    return base64.b64encode(text[: len(text) // 3 * 3].encode())


# What issuers' keys look like: each begins with what is the issuer's own, and means nothing else. That is looked for
# first, which takes milliseconds for a megabyte.
KEYS: Sequence[tuple[Sequence[bytes], re.Pattern[bytes]]] = (
    ((b"-----BEGIN ",), re.compile(rb".{11}(?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----")),
    ((_as_base64("-----BEGI"),), re.compile(rb"|".join(map(_as_base64, PEM)))),
    (tuple(map(_as_base64, ACCOUNT)), re.compile(rb"")),
    ((b"AKIA", b"ASIA"), re.compile(rb".{4}[A-Z2-7]{16}\b")),
    ((b"ghp_", b"gho_", b"ghs_", b"ghr_"), re.compile(rb".{4}[A-Za-z0-9]{36}\b")),
    ((b"github_pat_",), re.compile(rb".{11}\w{60}")),
    ((b"glpat-",), re.compile(rb".{6}[\w-]{20}")),
    ((b"sk-ant-", b"sk-proj-"), re.compile(rb"sk-[a-z]+-[\w-]{24}")),
    ((b"sk-",), re.compile(rb"sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}")),
    ((b"sk_live_", b"rk_live_"), re.compile(rb".{8}[A-Za-z0-9]{16}")),
    ((b"gsk_",), re.compile(rb"gsk_[A-Za-z0-9]{48}")),
    ((b"hf_",), re.compile(rb"hf_[A-Za-z]{34}\b")),
    ((b"xox",), re.compile(rb"xox[abprs]-[A-Za-z0-9-]{20}")),
    ((b"hooks.slack.com/services/",), re.compile(rb".{25}T\w{6,}/B\w{6,}/\w{20}")),
    ((b"pit-", b"pat-"),
     re.compile(rb"p[ai]t-(?:[a-z]{2}\d-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")),
    ((b"npm_",), re.compile(rb"npm_[A-Za-z0-9]{36}\b")),
    ((b"pypi-AgEI",), re.compile(rb"pypi-AgEI[\w-]{50}")),
    ((b"AIza",), re.compile(rb"AIza[\w-]{35}\b")),
    ((b"SG.",), re.compile(rb"SG\.[\w-]{22}\.[\w-]{43}")),
    ((b"re_",), re.compile(rb"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20}")),
)  # fmt: skip
PASSWORD = re.compile(
    rb"://[^\s:/@\"'{}$<>]*:(?!password@|secret@|pass@|\*+@|x+@|\.+@)[^\s:/@\"'{}$<>]{8,}"
    rb"@(?!localhost|127\.0\.0\.1|\[::1\]|db\b|host\b|example\.)[\w.-]+"
)
SCHEME = re.compile(rb"\b(?:postgres(?:ql)?|mysql|mariadb|mongodb|rediss?|amqps?)(?:\+\w+)?\Z")
LONGEST_SCHEME = 24
WORDS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")


def line_of_key(data: bytes) -> int:
    """The first line in which there is what looks like a key or a password of a database; 0 for none."""
    places = [_place(data, sign, pattern) for signs, pattern in KEYS for sign in signs]
    places += [found.start() for found in PASSWORD.finditer(data) if _is_database(data, found.start())][:1]
    at = min((place for place in places if place >= 0), default=-1)
    return data.count(b"\n", 0, at) + 1 if at >= 0 else 0


def _place(data: bytes, sign: bytes, pattern: re.Pattern[bytes]) -> int:
    """Where a key begins with this sign; -1 for nowhere. Within a word it is none."""
    at = data.find(sign)
    while at >= 0:
        within = at > 0 and sign[0] in WORDS and data[at - 1] in WORDS
        if not within and pattern.match(data, at):
            break
        at = data.find(sign, at + 1)
    return at


def _is_database(data: bytes, at: int) -> bool:
    return SCHEME.search(data[max(0, at - LONGEST_SCHEME) : at]) is not None
