"""Level 11: ways by which data leave: links with places for data, hosts that collect, and orders to send."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from heapq import heappush, heapreplace
from itertools import islice
from string import ascii_letters, digits
from typing import cast

import numpy as np

from circuit_script.judgment.compiled import LINKS, Links
from circuit_script.judgment.page import Page, View
from circuit_script.judgment.rules import Together, compiled, data, readable, rules
from circuit_script.judgment.sendings import GAP, orders
from circuit_script.judgment.verdict import Finding

LEVEL = "exfil"
MOST = 1000  # links that are looked at
MOST_FINDINGS = 20  # the surest
MOST_SAID = 50  # places of one order
LONGEST = 1000  # characters of a link

_RULES = rules(LEVEL)
_WEIGHTS = {name: round(min(rule.weight, 1.0), 3) for name, rule in _RULES.items()}
_HOSTS: dict[str, str] = {
    host: rule
    for family, rule in (
        ("collectors", "collector"), ("tunnels", "tunnel"), ("pastes", "tunnel"), ("metadata", "metadata-host"),
    )
    for host in data(LEVEL)["hosts"][family]
}  # fmt: skip
_SLOT = r"\{\{[^{}]{1,80}\}\}|\$?\{[^{}]{1,60}\}|\[[^\[\]\n()]{1,60}\]|<[a-z][a-z_ -]{1,60}>|%7b%7b[^%\s]{1,60}%7d%7d"
# These read one link, or go from one to the next: Python's own cost a tenth of RE2's for each. They take linear time:
# what comes again is bounded, or has nothing behind it for which it would go back.
_SCHEMES = r"\b(?:https?|ftp|gopher|dict|ldap|jar|file|php|sftp|smb|wss?)://"
_LINK = re.compile(rf"{_SCHEMES}(?:[^\s\"'<>()\[\]{{}}`|\\%]++|{_SLOT}|%)+", re.ASCII | re.IGNORECASE)
# The same from its first letter; what is its group is its host, unless a sign follows that is none of a path.
_LINK_HERE = re.compile(
    _LINK.pattern.removeprefix(r"\b").replace("://", r"://([^\s\"'<>()\[\]{}`|\\%/?#]*+)").removesuffix("+") + "*",
    re.ASCII | re.IGNORECASE,
)
_BEGUN = re.compile(rf"{_SCHEMES}(?:{_SLOT}|[^\s\"'<>()\[\]{{}}`|\\])", re.ASCII | re.IGNORECASE)
_KNOWN_SCHEMES = (
    *("http://", "https://", "ftp://", "gopher://", "dict://", "ldap://", "jar://", "file://", "php://", "sftp://"),
    *("smb://", "ws://", "wss://"),
)
# The same by its first sign, which is found faster than any of several expressions.
_IN_SLOT = re.compile(
    r"[{$\[<%](?:(?<=\{)(?:\{[^{}]{1,80}\}\}|[^{}]{1,60}\})|(?<=\$)\{[^{}]{1,60}\}|(?<=\[)[^\[\]\n()]{1,60}\]"
    r"|(?<=<)[a-z][a-z_ -]{1,60}>|(?<=%)7b%7b[^%\s]{1,60}%7d%7d)",
    re.ASCII | re.IGNORECASE,
)
_PLACE = re.compile(rf"[/=&?#.+_-](?:{_SLOT})".replace(r"\s", r" \t\n\f\r"), re.ASCII | re.IGNORECASE)
# What a link has that is looked at closely; most have nothing of it, however many there are.
_ODD = r"[^ \t\n\f\r\"'<>()/?#@]*@|\[|0x|\d[\dx.]*(?:[^\w.-]|$)"
_NAMED = (
    r"[^\s\"'<>()/?#@]*(?:[a-z0-9=_-]{40}|localhost|\.internal|\.local|\.lan|svc\.cluster|discord|api\.telegram|"
    + "|".join(each.replace(".", r"\.") for each in _HOSTS)
    + ")"
)
_CLOSELY = compiled(f"://(?:{_ODD}|{_NAMED})")
_TO_NAMED = compiled(f"://{_NAMED}")
_TO_ODD = re.compile(f"://(?:{_ODD})".replace("]*", "]*+").replace("$", r"\Z"), re.ASCII | re.IGNORECASE)
_TOPS = frozenset(host.rpartition(".")[2] for host in (*_HOSTS, "discord.com", "telegram.org"))
_KNOWN = (
    r"(?:^|[^a-z])(?:conversation|chat|history|secrets?|passw\w*|pwd|api[ _-]?key|(?:access|auth"
    r"|session)[ _-]?token|system[ _-]?prompt"
    r"|prompt|instructions?|memory|context|credentials?|ssn|credit[ _-]?card|card[ _-]?number|(?:user|private"
    r"|sensitive|exfil|stolen)[ _-]?(?:data|info|input|messages?)"
    r"|exfil|inbox|e-?mails|messages|base64\w*|b64\w*|previous|summary|answer|response|output|data|private|env"
    r"|cookies?|document|contents?)(?:$|[^a-z])"
)  # fmt: skip
_MAY_KNOW, _KNOWS = compiled(_KNOWN), re.compile(_KNOWN.replace("$", r"\Z"), re.ASCII)
_HOST_END = re.compile(r"[/?#\\]|\Z")
_SHOWN = ("src=", "](")  # before a picture
_WEB = frozenset({"http", "https", "ws", "wss", "ftp"})
_OF_NAMES = max(
    _WEIGHTS[each] for each in ("collector", "tunnel", "bot-hook", "long-label", "internal-host", "userinfo")
)
_OF_NUMBERS = max(_WEIGHTS["bare-address"], _WEIGHTS["internal-host"])
_OF_LINKS = max(_WEIGHTS.values())
_FOUR_NUMBERS = re.compile(r"(?:0|(?!0)\d+)(?:\.(?:0|(?!0)\d+)){3}")
_HEX = "0123456789abcdef"
# Hosts and paths of which nothing is said that would be surer than what is known.
_FEW_NUMBERS = (
    rf"(?!{'|'.join(re.escape(each) for each in _HOSTS if each[0].isdigit())})(?:0|[1-9]\d{{0,2}})"
    r"(?:\.(?:0|[1-9]\d{0,2})){3}"
)
_NUMBERS = _FEW_NUMBERS + r"|\[(?!fd00)[0-9a-f:]{1,60}+\](?<!a9fe\])"
_NAME = (
    r"[a-z][a-z0-9.-]{0,200}+(?<![.-])"
    + "".join(f"(?<!{re.escape(each)})" for each in _HOSTS if _HOSTS[each] == "metadata-host" and each[0].isalpha())
)  # fmt: skip
_USUAL = r"[a-z][a-z0-9.-]{0,40}+(?=/)(?<![.-])" + "".join(
    f"(?<!{each})" for each in sorted({*_TOPS, "internal", "local", "localdomain", "localhost", "lan", "cluster"})
)
_IN_PATH = r"[^\s\"'<>()\[\]{}`|\\%:]"
_HAS_SLOTS = r"(?:/{sign}{{0,60}}+(?:(?:\{{\{{{inner}{{1,60}}+\}}\}}|\{{{inner}{{1,60}}+\}}){sign}{{0,60}}+){{0,6}}+)"
_PATHS = {
    "asks": _USUAL + _HAS_SLOTS.format(sign=_IN_PATH, inner="[a-z0-9_. -]"),
    "says": r"(?![a-z0-9.-]{0,40}prompt)"
    + _USUAL
    + _HAS_SLOTS.format(sign=_IN_PATH.replace("%:]", "%:?p]"), inner="[a-oq-z0-9_. -]"),
}


@cache
def _dull(hosts: str, path: str) -> re.Pattern[str]:
    """Links one behind the other, from the first one's "://" to the next one's: in none of them is another."""
    kinds = [f"(?:{hosts})(?:[/?#]{_IN_PATH}{{0,700}}+)?"] if hosts else []
    kinds += [_PATHS[path]] if path else []
    before = r"[^\s=(\"'<][ \n]"
    return re.compile(
        rf"(?:://(?:{'|'.join(kinds)})(?=[\s\"'>)])[^:]*+(?:(?<={before}http)|(?<={before}https))(?=://))++", re.ASCII
    )


def _passing(least: float, *, slots: bool, may_know: bool) -> re.Pattern[str] | None:
    """What need not be looked at where all that scores no more than that is passed by."""
    hosts = _NUMBERS if least >= _OF_NUMBERS else ""
    if least >= _OF_NAMES:
        hosts = rf"(?:[a-z0-9._-]{{0,60}}@)?(?:{hosts}|{_NAME})"
    path = ""
    if slots and least >= 0.1:  # as much as is said of a place for what is not known
        wide = least >= _WEIGHTS["link-slot"] or not may_know
        path = "asks" if wide else "says" if least >= 0.4 else ""
    return _dull(hosts, path) if hosts or path else None


_SCHEME = compiled(
    r"(?:^|[(\s\"'=<>])((?:javascript|vbscript|livescript):(?:[\w(/'\"%]|\s\w{1,20}[(.=])|data:(?:text/html"
    r"|text/javascript|application/(?:javascript|x-javascript|xhtml)|image/svg)[;,]"
    r"|file:///?[\w.~%/]|(?:gopher|dict|ldap|jar|php|smb)://)"
)
_RARE_SCHEMES = ("gopher://", "dict://", "ldap://", "jar://", "php://", "smb://")
_LABEL = re.compile("[a-zA-Z0-9+/=_\u017f\u212a-]{40,63}")
_SINK = (
    r"://|script:|data:|file:|mailto:|www\.|webhook|@[\w-]{1,60}\.|\burls?\b|\blinks?\b|\bquery|\bimage\b|\bimg\b"
    r"|\bsubdomain|\bhostname|\bdns\b|\bparameter"
    r"|\brequest to\b|(?:get|post|http) request|(?:external|remote|attacker|my|following|this) (?:server|endpoint"
    r"|host|site|e-?mail|address|number)"
    r"|(?:\d{1,3}\.){3}\d|\bcurl\b|\bwget\b|nslookup|\bping\b|\bdig\b|\bresolve\b|look ?up|\bnc\b|\bncat|netcat"
    r"|invoke-web|\bfetch\b|sendbeacon|urlopen|xmlhttp|requests\.|new image|\|\s?base64|\$\("
)  # fmt: skip
# Orders are looked for where a word of theirs stands: expressions with gaps take their time on texts that all differ.
_SECRETS = (
    r"conversation|\bchat|histor|secret|passw|credential|system prompt|instructions|prompt|memory|context"
    r"|api[ _-]?key|token|cookie|\benv\b"
    r"|private|\bssh|environment|\.env|\b(?:all|every|each|entire|whole|full|complete|last|previous|user|customer"
    r"|client|contact|lead"
    r"|their|his|her|your)\b|personal|confidential|sensitive|credit|bank|inbox|database|balance|medical|patient"
    r"|health|account|address ?book"
    r"|contacts|location|\bkeys?\b|financial|transaction|record|payment|profile|files? content"
)
_HINTS = {
    "secrets": ("append", "send", "fetch"),
    "passing-on": ("relay",),
    "picture": ("render",),
    "machine": ("command", "dns"),
    "name": ("dns",),
}
_GOAL = (
    r"://|@[\w-]{1,60}\.|webhook|(?:\d{1,3}\.){3}\d|(?:external|remote|attacker|my|following|this) (?:server"
    r"|endpoint|url|host|site"
    r"|e-?mail|address|number)"
)
_ANY_HINT = (
    r"(?:send|forward|e-?mail|transmit|upload|post|bcc|relay)\w{0,3} (?:it|them|this|that|these|those|everything"
    r"|the|an?|cop)|markdown|\bimage|\bimg"
    r"|pixel|\bdns|nslookup|\bdig\b|\bping\b|resolve|look ?up|\$|`|/etc/|\.ssh|id_rsa|\.aws|\.env|printenv|cookie"
    r"|localstorage|environ"
)
# What three of the orders have between their gaps, as far as it is rare.
_APPENDED, _SENT = (GAP.split(_RULES[each].re)[1] for each in ("append", "send"))
_FETCHED, _AND_SENT = GAP.split(_RULES["fetch"].re)[1:3]
_NEEDS = {"append": {"appended"}, "send": {"goal", "sent"}, "fetch": {"goal", "fetched", "and-sent"}, "relay": {"goal"}}
_SIGNS = Together(
    {
        "sink": _SINK,
        "hint": _ANY_HINT,
        "goal": _GOAL,
        "secrets": _SECRETS,
        "passing-on": (
            r"(?:send|forward|e-?mail|transmit|upload|post|bcc|relay)\w{0,3} (?:it|them|this|that|these|those"
            r"|everything|the|an?|cop)"
        ),
        "picture": r"markdown|\bimage|\bimg|pixel",
        "machine": (
            r"document\.cookie|localstorage|process\.env|os\.environ|\$\(|`(?:cat|env|who|print)|/etc/|\.ssh"
            r"|id_rsa|\.aws|\.env\b|printenv|\$(?:aws|openai|secret|api|github)"
        ),
        "name": r"\b(?:dns|nslookup|dig|ping|resolve|look ?up)\b",
        "appended": _APPENDED,
        "sent": _SENT,
        "fetched": _FETCHED,
        "and-sent": _AND_SENT,
        "known": _KNOWN,
    }
)
_MAY_LEAVE = compiled(_SINK)
_PHRASES = {
    name: compiled(_RULES[name].re) for name in ("append", "send", "fetch", "relay", "render", "command", "dns")
}
_HOST = re.compile(r"://(?=([^/?#) \"'<>\n\t]{0,80}))")
_BOT_PATHS = {"discord.com": ("/api/webhooks/",), "discordapp.com": ("/api/webhooks/",), "telegram.org": ("/bot",)}
_NOT = ("not ", "never ", "n't ", "nobody ", "avoid ", "without ")
_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
_LOOP = cast("Links | None", LINKS)
_SCHEMED, _CODED, _MAILED, _WORDED, _PLACED = 1, 2, 4, 8, 16  # what a text has

Seen = tuple[float, str, View, str, int, int]
"""What may become a finding, if it is among the surest: its score, its rule, and where it stands in a view and in what
is said there."""

Told = tuple[str, float | None]
"""A rule that a link breaks, and how surely if not as its weight says."""


class _Surest:
    """What was seen. What scores no more than ``least`` would not be among the surest: as many that are as sure were
    seen before it."""

    __slots__ = ("_scores", "least", "seen")

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.least = -1.0
        self._scores: list[float] = []

    def add(self, seen: Seen) -> None:
        score = seen[0]
        if score <= self.least:
            return
        self.seen.append(seen)
        if len(self._scores) < MOST_FINDINGS:
            heappush(self._scores, score)
        else:
            heapreplace(self._scores, score)
        if len(self._scores) == MOST_FINDINGS:
            self.least = self._scores[0]

    def surest(self) -> list[Seen]:
        return sorted(self.seen, key=lambda each: -each[0])[:MOST_FINDINGS]


def may_leave(plain: str) -> bool:
    """Whether a text in ASCII has any sign of a way out; without one, there is none."""
    return _MAY_LEAVE.search(plain) is not None


def exfil(page: Page) -> list[Finding]:
    """Each way out in a text and in what was decoded of it."""
    found = _Surest()
    for view in page.views:
        _of_view(view, found)
    if not page.text.isascii() and "://" in page.text:
        for each in islice(_look_alikes(page.text), MOST_FINDINGS):
            found.add(each)
    return [
        _RULES[name].found(LEVEL, view.span(start, end), said[start:end], score)
        for score, name, view, said, start, end in found.surest()
    ]


def _of_view(view: View, found: _Surest) -> None:
    said = readable(view.plain)
    flat = _flat(said)
    signs = _SIGNS.of(flat)
    if "sink" not in signs:
        return
    _phrases(view, said, flat, signs, found)
    has = _signs_of(said) if _LOOP is None else _LOOP.signs(said)
    if has & _SCHEMED:
        _links(view, said, flat, found, slots=bool(has & _PLACED), may_know="known" in signs)
    alike: list[tuple[str, Iterator[tuple[int, int]]]] = []
    if has & _CODED:
        alike.append(("scheme", _schemes(flat)))
    if has & _MAILED:
        alike.append(("mail", _mails(said)))
    if has & _WORDED:
        alike.append(("other-host", _other_hosts(said)))
    for name, places in alike:  # of one score: more of them would never be among the surest
        if _WEIGHTS[name] > found.least:
            for start, end in islice(places, MOST_FINDINGS):
                found.add((_WEIGHTS[name], name, view, said, start, end))


def _signs_of(said: str) -> int:
    """What a text has of all that is looked for besides orders."""
    low = said.lower()
    coded = "script:" in said or "data:" in said or "file:" in said or any(each in said for each in _RARE_SCHEMES)
    placed = "{" in said or "[" in said or "<" in said or "%7b" in said
    return (
        _CODED * coded
        | _MAILED * ("mailto:" in said)
        | _WORDED * ("](" in said)
        | _PLACED * placed
        | _SCHEMED * any(each in low for each in _KNOWN_SCHEMES)
    )


def _flat(said: str) -> str:
    """The same in ASCII: each other character is one that no expression here knows. RE2 works out the places of a text
    in ASCII only without reading all of it anew. Two letters beyond ASCII are those of it in another case."""
    return _in_ascii(said) if _LOOP is None else _LOOP.flat(said)


def _in_ascii(said: str) -> str:
    if said.isascii() or "\u017f" in said or "\u212a" in said:
        return said
    codes = np.frombuffer(said.encode("utf-32-le"), np.uint32)
    return np.minimum(codes, 0x7F).astype(np.uint8).tobytes().decode("ascii")


def _schemes(said: str) -> Iterator[tuple[int, int]]:
    for match in islice(_SCHEME.finditer(said), MOST):
        yield match.start(1), min(match.end(1) + 60, len(said))


def _odd_links(
    said: str, flat: str, found: _Surest, *, slots: bool, may_know: bool
) -> Iterator[tuple[int, int, int, int]]:
    """Where the links stand that have something to look at, each once: where each begins, its host, the rest of it, and
    where it ends."""
    end, begun, passed = -1, -1, -1
    least, passing = 0.0, None
    places = _close(flat)
    before_slots = _before_slots if _LOOP is None else _LOOP.before_slots
    for at in sorted({*places, *before_slots(said, flat, MOST, LONGEST // 2)}) if slots else places:
        if at < passed or at < end:
            continue
        start, path, last = _link(said, at)
        if start < end:
            continue
        if found.least > least:
            least = found.least
            passing = _passing(least, slots=slots, may_know=may_know)
        if passing is not None and said[start:at] in ("http", "https"):
            dull = passing.match(said, at)
            if dull is not None and not said[max(0, start - 12) : start].rstrip("<\"' ").endswith(_SHOWN):
                passed = dull.end()
                continue
        if last > 0:
            end = last
            yield start, at + 3, path, end
            continue
        # Of no scheme that is known: it may hold one that is, or one follows.
        if begun < start:
            begun = _begun(said, start) if _LOOP is None else _LOOP.begun(said, start)
        if begun == len(said):
            continue
        link = _LINK.search(said[begun : start + LONGEST])
        if link is not None:
            first, end = begun + link.start(), begun + link.end()
            host = said.index("://", first) + 3
            yield first, host, _HOST_END.search(said, host, end).start(), end  # type: ignore[union-attr]


def _link(said: str, at: int) -> tuple[int, int, int]:
    """Where the link begins whose "://" stands there, where the rest of it does, and where it ends; twice -1 for the
    two if it has no scheme that is known, or nothing follows."""
    return _link_here(said, at, LONGEST) if _LOOP is None else _LOOP.link(said, at, LONGEST)


def _link_here(said: str, at: int, longest: int) -> tuple[int, int, int]:
    start = _begin(said, at)
    link = _LINK_HERE.match(said, start, start + longest)
    if link is None or link.end() <= at + 3:
        return start, -1, -1
    end, path = link.end(), link.end(1)
    if path < end and said[path] not in "/?#":
        path = _HOST_END.search(said, path, end).start()  # type: ignore[union-attr]
    return start, path, end


def _begun(said: str, start: int) -> int:
    """Where the first link from there on begins, with a scheme that is known; the text's end if there is none."""
    following = _BEGUN.search(said, start)
    return len(said) if following is None else following.start()


def _begin(said: str, at: int) -> int:
    """Where the letters begin that stand before a link's colon, at most six of them."""
    usual = at - 5 if said.endswith("s", 0, at) else at - 4
    if usual > 0 and said.startswith("http", usual) and not said[usual - 1].isalpha():
        return usual
    before = said[max(0, at - 6) : at]
    start = at - len(before) + len(before.rstrip(ascii_letters))
    while start > 0 and at - start < 6 and said[start - 1].isalpha():
        start -= 1
    return start


def _close(flat: str) -> list[int]:
    """Where links stand that are looked at closely for their hosts: the first of them."""
    if _CLOSELY.search(flat) is None:
        return []
    odd = [match.span() for match in islice(_TO_ODD.finditer(flat), MOST)]
    places = [start for start, _ in odd]
    passed = {end - 1 for _, end in odd}  # a number's end may be the colon of the next one, which is then none
    named = [start for start, _ in islice(_TO_NAMED.spans(flat), MOST + len(odd)) if start not in passed]
    return sorted({*places, *named[:MOST]})[:MOST]


def _before_slots(said: str, flat: str, most: int, longest: int) -> Iterable[int]:
    """Where links stand in which a place for data follows, as far as nothing is between."""
    at = done = -1
    for match in islice(_PLACE.finditer(flat), most):
        place, last = match.start(), at
        if said.startswith("://", place - 2):
            at = place - 2
        else:
            at = max(at, said.rfind("://", max(0, done, place - longest), place + 1))
        done = place - 1
        if at != last and len(said[at : place + 1].split(None, 1)) == 1:
            yield at


def _phrases(view: View, said: str, flat: str, signs: set[str], found: _Surest) -> None:
    hints = [*_HINTS] if "hint" in signs else ["secrets"]
    names = [name for hint in hints if hint in signs for name in _HINTS[hint] if signs.issuperset(_NEEDS.get(name, ()))]
    for name in sorted(dict.fromkeys(names), key=lambda each: -_WEIGHTS[each]):
        for start, end in islice(orders(name, _PHRASES[name], flat), MOST_SAID) if _WEIGHTS[name] > found.least else ():
            before = said[max(0, start - 24) : start]
            denied = any(each in before for each in _NOT)
            score = round(_RULES[name].weight * 0.3, 3) if denied else _WEIGHTS[name]
            found.add((score, name, view, said, start, end))
            if found.least >= _WEIGHTS[name]:
                break


def _links(view: View, said: str, flat: str, found: _Surest, *, slots: bool, may_know: bool) -> None:
    def add(told: Told) -> None:
        name, score = told
        found.add((_WEIGHTS[name] if score is None else score, name, view, said, start, end))

    for start, host, path, end in _odd_links(said, flat, found, slots=slots, may_know=may_know):
        if found.least >= _OF_LINKS:
            return
        if slots and (told := _slots(said, start, path, end, found.least, may_know=may_know)) is not None:
            add(told)
        if said[start : host - 3] not in _WEB:
            continue
        authority = said[host:path]
        if "@" in authority:
            user, _, authority = authority.rpartition("@")
            if "." in user.partition(":")[0]:
                add(("userinfo", None))
        if (told := _of_host(authority, said[path:end], found.least)) is not None:
            add(told)


def _has_slots(said: str) -> bool:
    return "{" in said or "[" in said or "<" in said or "%7b" in said


def _slots(said: str, start: int, path: int, end: int, least: float, *, may_know: bool) -> Told | None:
    """The rule that a link with places for data breaks; one that scores no more than ``least`` need not be told."""
    link = said[start:end]
    if not _has_slots(link) or link.startswith(("http://[", "https://[")):
        return None
    asks = "?" in said[path:end]
    if least >= (0.2 if asks else 0.1) and not may_know:
        return None
    before = said[max(0, start - 12) : start].rstrip("<\"' ")
    picture = before.endswith(_SHOWN[0]) or (
        before.endswith(_SHOWN[1])
        and said.rfind("![", max(0, start - 300), start) > said.rfind("](", max(0, start - 300), start - 2)
    )
    name = "image-slot" if picture else "link-slot"
    sure = picture or asks or "prompt" in link
    if (_WEIGHTS[name] if sure or "[" in link or "<" in link else 0.4) <= least:
        return None
    slots = _IN_SLOT.findall(link)
    if not slots:
        return None
    if not may_know or not any(map(_knows, slots)):
        return name, 0.2 if picture and asks else 0.1
    return name, None if sure or any(each[0] in "[<" for each in slots) else 0.4


def _knows(slot: str) -> bool:
    """Whether a place for data is one for what a model knows."""
    return _KNOWS.search(slot[1:-1].strip("{}$ ").replace("_", " ")) is not None


def _of_host(host: str, path: str, least: float) -> Told | None:
    """The rule that a link's host breaks; one that scores no more than ``least`` need not be told."""
    if host.startswith("["):
        return _of_address(host[1:].partition("]")[0], least)
    name = host.partition(":")[0].rstrip(".,;!)")
    if not name:
        return None
    digit = name[0].isdigit()
    if digit and least >= _OF_NUMBERS and _FOUR_NUMBERS.fullmatch(name) is not None:
        rule = _HOSTS.get(name)
        return None if rule is None else (rule, None)
    labels = name.split(".")
    for first in range(max(0, len(labels) - 4), len(labels)) if labels[-1] in _TOPS else ():
        rule = _HOSTS.get(".".join(labels[first:]))
        if rule is not None:
            return rule, None
    if digit and _FOUR_NUMBERS.fullmatch(name) is not None:
        if all(int(each[:4]) < 256 for each in labels):
            return ("internal-host" if _internal(labels) else "bare-address"), None
    elif digit and all(each[:1].isdigit() for each in labels):
        if len(labels) <= 4 and (len(name) >= 8 or "x" in name) and all(map(_number, labels)):
            return "odd-address", None
    elif (
        name == "localhost"
        or labels[-1] in ("internal", "local", "localdomain", "lan")
        or name.endswith(".svc.cluster")
    ):
        return "internal-host", 0.2 if name == "localhost" else None
    elif labels[-1] in _TOPS and path.startswith(_BOT_PATHS.get(".".join(labels[-2:]), ("\n",))):
        return "bot-hook", None
    elif len(name) > 44 and least < _WEIGHTS["long-label"] and any(_random(each) for each in labels[:-2]):
        return "long-label", None
    return None


def _of_address(name: str, least: float) -> Told | None:
    """The same of what stands in brackets."""
    metadata = name.startswith("fd00:ec2") or name.endswith("a9fe:a9fe") or "169.254.169.254" in name
    if not metadata and least >= _OF_NUMBERS:
        return None
    if ":" not in name or name.strip(_HEX + ":.%"):
        return None
    if metadata:
        return "metadata-host", None
    internal = name in ("::1", "::") or name.startswith(("fe80", "fc", "fd"))
    return ("internal-host" if internal else "bare-address"), None


def _number(label: str) -> bool:
    return label.isdecimal() or (label.startswith("0x") and not label[2:].strip(_HEX))


def _internal(labels: list[str]) -> bool:
    first, second = int(labels[0]), int(labels[1])
    return first in (0, 10, 127) or (first, second) in ((192, 168), (169, 254)) or (first == 172 and 16 <= second < 32)


def _random(label: str) -> bool:
    """Long, and by its digits or its lack of words no name that a person chose."""
    return _is_random(label) if _LOOP is None else _LOOP.random(label)


def _is_random(label: str) -> bool:
    if _LABEL.fullmatch(label) is None:
        return False
    if label.count("-") >= 3:
        return False
    return sum(map(label.count, "aeiou")) * 5 < len(label) or sum(map(label.count, digits)) >= 5


def _mails(said: str) -> Iterator[tuple[int, int]]:
    place, body = 0, -1
    for _ in range(MOST):
        place = said.find("mailto:", place)
        if body < place:
            body = said.find("body=", place)
        if place < 0 or body < 0:
            return
        if body < place + 600:
            ends = [at for at in (said.find(each, place, place + 600) for each in "\"'>)") if at >= 0]
            end = min(*ends, place + 600 if ends else place + 300, len(said))
            inside = said[body : end + 1] if body + 5 <= end else ""
            may = inside and _MAY_KNOW.search(inside.replace("_", " ")) is not None
            if may and any(_knows(match[0]) for match in _IN_SLOT.finditer(inside)):
                yield place, end
        place += 7


def _other_hosts(said: str) -> Iterator[tuple[int, int]]:
    place = 0
    for _ in range(MOST):
        place = said.find("](", place + 1)
        if place < 0:
            return
        start = said.rfind("[", max(0, place - 200), place)
        if start < 0 or (start > 0 and said[start - 1] == "!"):
            continue
        words = said[start + 1 : place].strip()
        shown = _host(words, bare=True)
        goes = _host(said[place + 2 : place + 300].lstrip("< "), bare=False) if shown else ""
        if goes and _owner(shown) != _owner(goes):
            end = said.find(")", place, place + 300)
            yield start, place + 2 if end < 0 else end + 1


def _host(words: str, *, bare: bool) -> str:
    """The host that a link's text names, or "" if it names none."""
    scheme, sign, rest = words.partition("://")
    if not sign:
        if not (bare and words.startswith("www.")):
            return ""
        rest = words
    elif scheme not in ("http", "https"):
        return ""
    if " " in rest.strip() and bare:
        return ""
    end = min((at for at in map(rest.find, '/?#) "') if at >= 0), default=len(rest))
    host = rest[:end].rpartition("@")[2].partition(":")[0].rstrip(".")
    return host if "." in host and "{" not in host and "<" not in host else ""


def _owner(host: str) -> str:
    """The part of a host's name that one can buy, nearly: of `a.b.co.uk` it is `b.co.uk`."""
    labels = host.removeprefix("www.").split(".")
    short = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3 if short else -2 :])


def _look_alikes(text: str) -> Iterator[Seen]:
    """Hosts one of whose labels has letters of two scripts that look alike."""
    view = View("plain", text, lambda: range(len(text) + 1))
    for match in islice(_HOST.finditer(text), MOST):
        host = match[1]
        if not host.isascii() and any(len(_scripts(label)) > 1 for label in host.split(".")):
            start, end = match.span(1)
            yield _WEIGHTS["look-alike"], "look-alike", view, text, start, end


def _scripts(label: str) -> set[str]:
    found = {unicodedata.name(each, "").split(" ", 1)[0] for each in label if each.isalpha()}
    return found.intersection(_SCRIPTS)
