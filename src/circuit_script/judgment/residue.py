"""Level 15: what must not leave by an answer or an effect: marks, secrets, personal data, active content, prompts."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import quote

from circuit_script.judgment.exfil import exfil
from circuit_script.judgment.page import Page, View
from circuit_script.judgment.rules import Match, compiled, data, readable, rules
from circuit_script.judgment.verdict import Finding

LEVEL = "residue"
MOST = 100  # findings of one rule
MASK = "[masked]"
SHORTEST_CANARY = 6  # characters; what is shorter stands in texts by chance
KEY = 8000  # characters of a private key

_RULES = rules(LEVEL)
CLASSES: dict[str, str] = {each["id"]: each["class"] for each in data(LEVEL)["rule"]}
"""Of each rule what its findings are: secret, personal, active or leak."""

_FORMS = {name: compiled(rule.re) for name, rule in _RULES.items() if rule.re}
_GROUPS = (
    ("private-key", "cloud-key", "vendor-token", "jwt", "login", "bearer", "assigned"),
    ("phone", "card", "iban", "ssn"),
    ("script", "formula", "sql", "shell", "image", "template", "prompt"),
)
_TOGETHER = [compiled("|".join(f"(?:{_RULES[name].re})" for name in names)) for names in _GROUPS]
_ANY = compiled("|".join(f"(?:{_RULES[name].re})" for names in _GROUPS for name in names))  # most texts have none
_LINKS = frozenset(
    f"exfil.{each}"
    for each in (
        "scheme",
        "userinfo",
        "other-host",
        "look-alike",
        "collector",
        "metadata-host",
        "odd-address",
        "image-slot",
        "link-slot",
    )
)
_IBAN = {  # how long the numbers of a country are
    "AD": 24, "AE": 23, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VG": 24, "XK": 20,
}  # fmt: skip


def residue(text: str, canaries: Iterable[str] = ()) -> list[Finding]:
    """What must not leave in ``text``, ordered by its place. ``canaries`` are marks that stand only in hidden texts."""
    findings = list(_canaries(text, canaries))
    said = readable(text)
    if _ANY.search(said) is not None:
        for together, names in zip(_TOGETHER, _GROUPS, strict=True):
            if together.search(said) is not None:
                for name in names:
                    findings += _by_form(name, said)
    if "@" in said:
        findings += _by_form("email", said)
    if "://" in said or "script:" in said:
        findings += _links(said)
    findings.sort(key=lambda each: each.span)
    return findings


def class_of(finding: Finding) -> str:
    """What a finding of this level is: secret, personal, active or leak; "" for those of other levels."""
    return CLASSES.get(finding.pattern, "")


def masked(text: str, findings: Sequence[Finding], mark: str = MASK) -> str:
    """The text with ``mark`` in place of what was found; places that touch become one."""
    kept: list[str] = []
    last = 0
    for start, end in sorted(each.span for each in findings):
        if end <= last:
            continue
        if start > last or not kept:
            kept += [text[last:start], mark]
        last = end
    return "".join(kept) + text[last:]


def _by_form(name: str, text: str) -> Iterator[Finding]:
    rule, check = _RULES[name], _CHECKS.get(name)
    for count, match in enumerate(_FORMS[name].finditer(text)):
        if count >= MOST:
            return
        start, end = _place(match, name)
        if name == "private-key":
            closed = text.find("-----END", end, end + KEY)
            last = text.find("-----", closed + 8, closed + 60) if closed >= 0 else -1
            end = last + 5 if last >= 0 else min(len(text), end + KEY)
        score: float | None = None
        if check is not None:
            end, score = check(text, start, end, rule.weight)
            if score <= 0:
                continue
        yield rule.found(LEVEL, (start, end), text[start:end], score)


def _place(match: Match, name: str) -> tuple[int, int]:
    """The group that a rule's expression has, or else all of it."""
    if name in ("email", "phone", "card", "ssn", "formula", "assigned", "bearer"):
        return match.span(1)
    return match.span()


Check = Callable[[str, int, int, float], tuple[int, float]]
"""Of a text, a place in it and a rule's weight: where what was found really ends, and its score, 0 if it is nothing."""


def _card(text: str, start: int, end: int, weight: float) -> tuple[int, float]:
    digits = [int(each) for each in text[start:end] if each in "0123456789"]
    if len(digits) < 13 or len(set(digits)) < 2 or digits[-8:] == [0] * 8:
        return end, 0.0
    doubled = (sum(divmod(2 * each, 10)) for each in digits[-2::-2])
    return end, weight if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 else 0.0


def _iban(text: str, start: int, end: int, weight: float) -> tuple[int, float]:
    length = _IBAN.get(text[start : start + 2], 0)
    places = [at for at in range(start, end) if text[at] != " "][:length]
    if not length or len(places) < length:
        return end, 0.0
    said = "".join(text[at] for at in places)
    number = "".join(str(int(each, 36)) for each in said[4:] + said[:4])
    return places[-1] + 1, weight if int(number) % 97 == 1 else 0.0


def _ssn(text: str, start: int, end: int, weight: float) -> tuple[int, float]:
    area, group, serial = text[start:end].split("-")
    real = area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"
    return end, weight if real else 0.0


def _value(text: str, start: int, end: int, weight: float) -> tuple[int, float]:
    """A word is no password, nor is a place for one."""
    said = text[start:end].rstrip(".!?)")
    if said.startswith(("{", "$", "<", "[", "*", "(", "%")) or len(set(said)) < 4 or "://" in said or len(said) < 6:
        return end, 0.0
    letters, digits = any(map(str.isalpha, said)), any(map(str.isdigit, said))
    mixed = (
        (letters and digits) or (letters and any(each in "!@#$%^&*+=~" for each in said)) or (digits and len(said) >= 8)
    )
    return start + len(said), weight if mixed else 0.0


def _bearer(text: str, start: int, end: int, weight: float) -> tuple[int, float]:
    said = text[start:end]
    plain = said.isalpha() and (said.islower() or said.istitle())
    return end, 0.0 if plain or ("-" in said and said.replace("-", "").isalpha()) else weight


_CHECKS: dict[str, Check] = {"card": _card, "iban": _iban, "ssn": _ssn, "assigned": _value, "bearer": _bearer}


def _links(text: str) -> Iterator[Finding]:
    low = text.lower()
    if len(low) != len(text):
        low = "".join(small if len(small := each.lower()) == 1 else each for each in text)
    for each in exfil(Page(text, (View("plain", low, lambda: range(len(text) + 1)),))):
        if each.pattern in _LINKS and each.score >= 0.3:
            start, end = each.span
            yield _RULES["link"].found(LEVEL, (start, end), text[start:end], each.score)


def _canaries(text: str, canaries: Iterable[str]) -> Iterator[Finding]:
    rule = _RULES["canary"]
    low = small = ""
    places: list[int] = []
    for canary in canaries:
        if len(canary) < SHORTEST_CANARY:
            continue
        if not low:
            low = "".join(lower if len(lower := each.lower()) == 1 else each for each in text)
            places = [at for at, each in enumerate(low) if each.isalnum()]
            small = "".join(low[at] for at in places)
        found: set[tuple[int, int]] = set()
        for form, exact in _forms(canary):
            _add(found, text if exact else low, form if exact else form.lower(), None)
        bare = "".join(each for each in canary.lower() if each.isalnum())
        if len(bare) >= SHORTEST_CANARY:
            for form in (bare, bare[::-1]):
                _add(found, small, form, places)
        for span in sorted(found):
            yield rule.found(LEVEL, span, text[slice(*span)])


def _add(found: set[tuple[int, int]], text: str, form: str, places: list[int] | None) -> None:
    at = text.find(form)
    while at >= 0 and len(found) < MOST:
        end = at + len(form)
        found.add((at, end) if places is None else (places[at], places[end - 1] + 1))
        at = text.find(form, end)


def _forms(canary: str) -> Iterator[tuple[str, bool]]:
    """A mark as it may be told, and whether its letters' case counts."""
    raw = canary.encode("utf-8", "replace")
    yield canary, False
    yield canary[::-1], False
    yield raw.hex(), False
    yield quote(canary.encode("utf-8", "replace"), safe=""), False
    yield codecs.encode(canary, "rot13"), False
    for shift in range(3):  # base64 reads three bytes at once: within a longer text a mark may begin at each of them
        coded = base64.b64encode(b"\0" * shift + raw).decode()
        first = (0, 2, 3)[shift]
        core = coded[first : len(coded.rstrip("=")) - (1 if (len(raw) + shift) % 3 else 0)]
        if len(core) >= SHORTEST_CANARY + 2:
            yield core, True
            yield core.replace("+", "-").replace("/", "_"), True
