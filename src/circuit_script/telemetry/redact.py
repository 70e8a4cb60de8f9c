"""Secrets and personal data are taken out of what handlers say before it leaves the worker.

A field goes by its name, a piece of a text by what it looks like, or since it is a secret that this process has read.
Most lines have neither: a few quick looks say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from circuit_script.settings_see import LogSettings

REDACTED = "[redacted]"
DEEPEST = 12  # levels of fields within fields that are looked through; what lies deeper is left out
SHORT = 13  # characters; what has fewer, all letters and digits, looks like nothing,
SHORTEST = 9  # nor does what has fewer, and no sign of a name, a password or an address
MOST_KEYS = 4000  # names of fields whose verdict is remembered

_NOT_A_LETTER = re.compile(r"[^a-z0-9]+")
# By the letters of a name alone. Counts like `llm_tokens` are no secrets.
_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase|code)|pwd$|secret|token$|apikey|authorization|^auth$|cookie|privatekey|accesskey|"
    r"credential|signingkey|sessionid|^jwt$|^bearer|cvv|^cvc"
)
_PERSONAL_NAME = re.compile(
    r"e?mail(address|s)?$|phone(number)?s?$|^mobile|^tel$|^telephone|^fax|^ssn$|socialsecurity|card(number|no)$|^iban$|"
    r"dateofbirth|^dob$|^birthday|passport"
)
# Each begins with a sign that is looked for first. Nothing here goes back far: a text of a megabyte takes milliseconds.
_SECRETS: Sequence[tuple[tuple[str, ...], re.Pattern[str], str]] = (
    (("://",), re.compile(r"(?<=://)([^\s/:@]*+):[^\s/@]++@"), rf"\1:{REDACTED}@"),
    (("-----begin",), re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
     REDACTED),
    (("bearer ", "basic "), re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{8,}+"), rf"\1 {REDACTED}"),
    (("eyj",), re.compile(r"(?<![\w-])(?=[\w-]*?\beyJ[\w-]{5})[\w-]++\.[\w-]++\.[\w-]*+"), REDACTED),
    (("sk-", "sk_", "pk_", "rk_", "ghp_", "gho_", "ghs_", "ghu_", "github_pat_", "glpat-", "xox", "whsec_", "shpat_"),
     re.compile(r"\b(?:[spr]k[-_]|gh[pousr]_|github_pat_|glpat-|xox[a-z]-|whsec_|shpat_)[\w-]{12,}+"), REDACTED),
    (("akia", "asia"), re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), REDACTED),
    (("aiza",), re.compile(r"\bAIza[\w-]{30,}+"), REDACTED),
    (("passw", "pwd", "passphrase", "secret", "token", "api_key", "api-key", "apikey", "authorization", "cookie"),
     re.compile(r"""(?ix) ((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|authorization|cookie)
                    ["']? \s{0,3} [:=] \s{0,3})
                    (?: "[^"\n]*+"? | '[^'\n]*+'? | (?:(?:bearer|basic)\s)? (?:\[redacted\] | [^\s"',;&}\]]++) )"""),
     rf"\1{REDACTED}"),
)  # fmt: skip
# What looks like a secret by these has a colon, a sign of equality, a hyphen or an underscore besides.
_WITH_MARKS = frozenset({"passw", "pwd", "passphrase", "secret", "token", "apikey", "authorization", "cookie", "xox"})
_MAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]++@(?:[\w-]++\.)+[\w-]{2,}+")
# With its country's sign, or in the groups in which it is written; bare digits may be anything.
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+[1-9](?:[ ().-]{0,2}\d){7,14}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[ .-]\d{3}[ .-]\d{4})(?![\w-])"
)
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
_NATIONAL = re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")
_DIGITS = re.compile(r"\d{3}[\d ().-]{5,}\d")

SHORTEST_KNOWN = 6  # characters; what is shorter stands in texts by chance
PIECE = 6  # characters of a known secret by which it is found
LONG = 2 * PIECE - 1  # characters; what has fewer is looked for by itself
FEW = 8  # of those known, up to which each is looked for by itself: that is quicker than a look at pieces
MOST_KNOWN = 50_000  # forms of known secrets; those known longest are forgotten first


class Known:
    """The secrets that a process has read, in the forms in which a text may have them.

    Of few, each is looked for. Of many, a text is looked at in every `LONG - PIECE + 1` characters: any long secret
    within it has one of its middle's pieces there. So a line costs the same with ten thousand of them.
    """

    def __init__(self) -> None:
        self.any = False  # whether there is one: most processes know none
        self._all: dict[str, None] = {}
        self._loose: list[str] = []  # are looked for by themselves
        self._pieces: dict[str, list[str]] = {}

    def learn(self, secret: str) -> None:
        """Redact this from now on."""
        if secret in self._all:
            return
        for form in _forms(secret):
            if len(form) >= SHORTEST_KNOWN and form not in self._all:
                self.any = True
                self._all[form] = None
                self._add(form)
        if len(self._all) > MOST_KNOWN:
            self._all = dict.fromkeys(list(self._all)[MOST_KNOWN // 10 :])
            self._loose, self._pieces = [], {}
            for form in self._all:
                self._add(form)

    def _add(self, form: str) -> None:
        if len(form) < LONG or len(self._all) <= FEW:
            self._loose.append(form)
            self._loose.sort(key=len, reverse=True)  # the longest goes first: another may be a part of it
            return
        for each in [each for each in self._loose if len(each) >= LONG]:
            self._loose.remove(each)
            self._cut(each)
        self._cut(form)

    def _cut(self, form: str) -> None:
        """Any `LONG` characters serve: those in the middle are least alike, as tokens of one vendor begin the same."""
        first = (len(form) - LONG) // 2
        for place in range(first, first + LONG - PIECE + 1):
            self._pieces.setdefault(form[place : place + PIECE], []).append(form)

    def without(self, said: str) -> str:
        """``said`` without any of them."""
        pieces = self._pieces
        if pieces:
            found: set[str] | None = None
            for place in range(0, len(said) - PIECE + 1, LONG - PIECE + 1):
                if (forms := pieces.get(said[place : place + PIECE])) is not None:
                    found = set(forms) if found is None else found.union(forms)
            if found is not None:
                for form in sorted(found, key=len, reverse=True):
                    said = said.replace(form, REDACTED)
        for form in self._loose:
            if form in said:
                said = said.replace(form, REDACTED)
        return said


def _forms(secret: str) -> list[str]:
    """A secret as it is, as an address or JSON has it, and its lines."""
    forms = [secret, secret.strip(), quote(secret, safe=""), json.dumps(secret)[1:-1]]
    lines = secret.split("\n")
    if len(lines) > 1:
        forms += [line.strip() for line in lines if len(line) >= 2 * SHORTEST_KNOWN and "-----" not in line]
    return list(dict.fromkeys(forms))


KNOWN = Known()  # of this process: what is a secret is one for everything that the process says


class Redactor:
    """Blanks what must not be kept. ``keys`` are further names of fields, ``patterns`` further expressions; ``known``
    are secrets by their value."""

    def __init__(
        self,
        keys: Sequence[str] = (),
        patterns: Sequence[str] = (),
        *,
        personal: bool = True,
        known: Known = KNOWN,
    ) -> None:
        self._known = known
        self._keys = frozenset(_plain(key) for key in keys)
        self._patterns = [re.compile(each) for each in patterns]
        self._personal = personal
        signs = dict.fromkeys(sign for signs, _, _ in _SECRETS for sign in signs)
        self._signs = tuple(sign for sign in signs if sign.strip().isalpha() and sign not in _WITH_MARKS)
        self._signs_with_marks = tuple(sorted(signs, key=self._signs.__contains__, reverse=True))
        self._verdicts: dict[str, bool] = {}

    @classmethod
    def of_settings(cls, settings: LogSettings) -> Redactor:
        return cls(settings.redact_keys, settings.redact_patterns, personal=settings.redact_personal)

    def text(self, said: str) -> str:
        """``said`` without what looks like a secret, or like an address, telephone or card number."""
        if self._known.any:
            said = self._known.without(said)
        low = said.lower()
        marked = ":" in low or "=" in low or "-" in low or "_" in low
        for sign in self._signs_with_marks if marked else self._signs:
            if sign in low:
                said = self._without_secrets(said, low)
                break
        if self._personal:
            if "@" in said:
                said = _MAIL.sub(REDACTED, said)
            if _DIGITS.search(said) is not None:
                said = _CARD.sub(_unless_no_card, _NATIONAL.sub(REDACTED, _PHONE.sub(REDACTED, said)))
        for pattern in self._patterns:
            said = pattern.sub(REDACTED, said)
        return said

    def fields(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same fields, without the values of those whose name says that they are secret; the rest as ``text``."""
        return self._fields(fields, DEEPEST)

    def value(self, value: Any) -> Any:
        """Any value: a text, a number, or fields and lists of them."""
        return self._value(value, DEEPEST)

    def _fields(self, fields: Mapping[Any, Any], depth: int) -> Mapping[Any, Any]:
        verdicts = self._verdicts
        return {
            key: (
                (REDACTED if value not in (None, "") else value)
                if (verdicts.get(key) if type(key) is str and key in verdicts else self._is_secret(key, value))
                else (value if type(value) in _SAFE else self._value(value, depth))
            )
            for key, value in fields.items()
        }

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            if len(value) < SHORT and not self._patterns and _is_nothing(value):
                return self._known.without(value) if self._known.any and len(value) >= SHORTEST_KNOWN else value
            return self.text(value)
        if isinstance(value, int):
            return value if -(10**12) < value < 10**12 or self.text(str(value)) == str(value) else REDACTED
        if value is None or isinstance(value, float):
            return value
        if depth <= 0:
            return "…"
        if isinstance(value, Mapping):
            return self._fields(value, depth - 1)
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(each, depth - 1) for each in value]
        return self.text(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))

    def _is_secret(self, key: Any, value: Any) -> bool:
        name = _plain(str(key))
        found = name in self._keys or _SECRET_NAME.search(name) is not None
        found = found or (self._personal and _PERSONAL_NAME.search(name) is not None)
        if type(key) is str and len(self._verdicts) < MOST_KEYS:
            self._verdicts[key] = found
        return found

    @staticmethod
    def _without_secrets(said: str, low: str) -> str:
        for signs, pattern, word in _SECRETS:
            if any(sign in low for sign in signs):
                said = pattern.sub(word, said)
        return said


_SAFE = frozenset({bool, float, type(None)})
Redact = Callable[[str], str]


def _is_nothing(short: str) -> bool:
    if len(short) < SHORTEST:
        return not (":" in short or "=" in short or "@" in short)
    return short.isalnum()


def _plain(name: str) -> str:
    return _NOT_A_LETTER.sub("", name.lower())


def _unless_no_card(found: re.Match[str]) -> str:
    """The digits of a card add up (Luhn's formula, ISO/IEC 7812-1, annex B)."""
    digits = [int(each) for each in found[0] if each.isdigit()]
    doubled = (sum(divmod(2 * each, 10)) for each in digits[-2::-2])
    return REDACTED if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 else found[0]
