"""Level 11: ways by which data leave: links with places for data, hosts that collect, and orders to send."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from string import ascii_letters

from circuit_script.judgment.page import Page, View
from circuit_script.judgment.rules import Together, compiled, data, readable, rules
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
_BEGUN = re.compile(rf"{_SCHEMES}(?:{_SLOT}|[^\s\"'<>()\[\]{{}}`|\\])", re.ASCII | re.IGNORECASE)
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
_PARTS = re.compile(r"([^:]*)://([^/?#\\]*)")
_FOUR_NUMBERS = re.compile(r"(?:0|(?!0)\d+)(?:\.(?:0|(?!0)\d+)){3}")
_HEX = "0123456789abcdef"
_SCHEME = compiled(
    r"(?:^|[(\s\"'=<>])((?:javascript|vbscript|livescript):(?:[\w(/'\"%]|\s\w{1,20}[(.=])|data:(?:text/html"
    r"|text/javascript|application/(?:javascript|x-javascript|xhtml)|image/svg)[;,]"
    r"|file:///?[\w.~%/]|(?:gopher|dict|ldap|jar|php|smb)://)"
)
_RARE_SCHEMES = ("gopher://", "dict://", "ldap://", "jar://", "php://", "smb://")
_LABEL = compiled(r"[a-z0-9+/=_-]{40,63}")
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
# What two of the orders have between their gaps, as far as it is rare.
_GAP = re.compile(r"(?:\.|\[\^\(\)\])\{0,\d+\}\??")
_SENT, _FETCHED, _AND_SENT = _GAP.split(_RULES["send"].re)[1], *_GAP.split(_RULES["fetch"].re)[1:3]
_NEEDS = {"send": {"goal", "sent"}, "fetch": {"goal", "fetched", "and-sent"}, "relay": {"goal"}}
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
        "sent": _SENT,
        "fetched": _FETCHED,
        "and-sent": _AND_SENT,
    }
)
_MAY_LEAVE = compiled(_SINK)
_PHRASES = {
    name: compiled(_RULES[name].re) for name in ("append", "send", "fetch", "relay", "render", "command", "dns")
}
_BOT_PATHS = {"discord.com": ("/api/webhooks/",), "discordapp.com": ("/api/webhooks/",), "telegram.org": ("/bot",)}
_NOT = ("not ", "never ", "n't ", "nobody ", "avoid ", "without ")
_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")

Seen = tuple[float, str, View, str, int, int]
"""What may become a finding, if it is among the surest: its score, its rule, and where it stands in a view and in what
is said there."""


def may_leave(plain: str) -> bool:
    """Whether a text in ASCII has any sign of a way out; without one, there is none."""
    return _MAY_LEAVE.search(plain) is not None


def exfil(page: Page) -> list[Finding]:
    """Each way out in a text and in what was decoded of it."""
    seen: list[Seen] = []
    for view in page.views:
        _of_view(view, seen)
    if "://" in page.text and not page.text.isascii():
        seen += islice(_look_alikes(page.text), MOST_FINDINGS)
    seen.sort(key=lambda each: -each[0])
    return [
        _RULES[name].found(LEVEL, view.span(start, end), said[start:end], score)
        for score, name, view, said, start, end in seen[:MOST_FINDINGS]
    ]


def _of_view(view: View, seen: list[Seen]) -> None:
    said = readable(view.plain)
    signs = _SIGNS.of(said)
    if "sink" not in signs:
        return
    _phrases(view, said, signs, seen)
    if "://" in said:
        for start, end in _odd_links(said):
            for name, score in _of_link(said, start, end):
                seen.append((_WEIGHTS[name] if score is None else score, name, view, said, start, end))
    alike: list[tuple[str, Iterator[tuple[int, int]]]] = []
    if "script:" in said or "data:" in said or "file:" in said or any(each in said for each in _RARE_SCHEMES):
        alike.append(("scheme", _schemes(said)))
    if "mailto:" in said:
        alike.append(("mail", _mails(said)))
    if "](" in said:
        alike.append(("other-host", _other_hosts(said)))
    for name, places in alike:  # of one score: more of them would never be among the surest
        seen += [(_WEIGHTS[name], name, view, said, start, end) for start, end in islice(places, MOST_FINDINGS)]


def _schemes(said: str) -> Iterator[tuple[int, int]]:
    for match in islice(_SCHEME.finditer(said), MOST):
        yield match.start(1), min(match.end(1) + 60, len(said))


def _odd_links(said: str) -> Iterator[tuple[int, int]]:
    """From where to where the links stand that have something to look at, each once."""
    end, begun = -1, -1
    for at in sorted({*_close(said), *_before_slots(said)}):
        start = first = _begin(said, at)
        if start < end:
            continue
        link = _LINK.match(said[start : start + LONGEST])
        if link is None:  # of no scheme that is known: it may hold one that is, or one follows
            if begun < start:
                following = _BEGUN.search(said, start)
                begun = len(said) if following is None else following.start()
            first = begun
            link = _LINK.search(said[first : start + LONGEST])
        if link is not None:
            end = first + link.end()
            yield first + link.start(), end


def _begin(said: str, at: int) -> int:
    """Where the letters begin that stand before a link's colon, at most six of them."""
    before = said[max(0, at - 6) : at]
    start = at - len(before) + len(before.rstrip(ascii_letters))
    while start > 0 and at - start < 6 and said[start - 1].isalpha():
        start -= 1
    return start


def _close(said: str) -> list[int]:
    """Where links stand that are looked at closely for their hosts: the first of them."""
    if _CLOSELY.search(said) is None:
        return []
    places: list[int] = []
    passed: set[int] = set()
    for match in islice(_TO_ODD.finditer(said), MOST):
        places.append(match.start())
        passed.add(match.end() - 1)  # a number's end may be the colon of the next one, which is then none
    named = (start for start, _ in _TO_NAMED.spans(said) if start not in passed)
    return sorted({*places, *islice(named, MOST)})[:MOST]


def _before_slots(said: str) -> Iterator[int]:
    """Where links stand in which a place for data follows, as far as nothing is between."""
    if not any(each in said for each in ("{", "[", "<", "%7b")):
        return
    at = done = -1
    for match in islice(_PLACE.finditer(said), MOST):
        place, last = match.start(), at
        at = max(at, said.rfind("://", max(0, done, place - LONGEST // 2), place + 1))
        done = place - 1
        if at != last and len(said[at : place + 1].split(None, 1)) == 1:
            yield at


def _phrases(view: View, said: str, signs: set[str], seen: list[Seen]) -> None:
    hints = [*_HINTS] if "hint" in signs else ["secrets"]
    names = [name for hint in hints if hint in signs for name in _HINTS[hint] if signs.issuperset(_NEEDS.get(name, ()))]
    for name in dict.fromkeys(names):
        sure = 0
        for match in islice(_PHRASES[name].finditer(said), MOST_SAID):
            start, end = match.span()
            before = said[max(0, start - 24) : start]
            denied = any(each in before for each in _NOT)
            score = round(_RULES[name].weight * 0.3, 3) if denied else _WEIGHTS[name]
            seen.append((score, name, view, said, start, end))
            sure += not denied
            if sure >= MOST_FINDINGS:
                break


def _of_link(said: str, start: int, end: int) -> Iterator[tuple[str, float | None]]:
    link = said[start:end]
    scheme, authority, path = _PARTS.split(link, 1)[1:]
    if "{" in link or "[" in link or "<" in link or "%7b" in link:
        known = _slots(said, start, link, path)
        if known is not None:
            yield known
    if scheme not in ("http", "https", "ws", "wss", "ftp"):
        return
    user, sign, host = authority.rpartition("@")
    if sign and "." in user.partition(":")[0]:
        yield "userinfo", None
    yield from _of_host(host, path)


def _slots(said: str, start: int, link: str, path: str) -> tuple[str, float | None] | None:
    slots = _IN_SLOT.findall(link)
    if not slots or link.startswith(("http://[", "https://[")):
        return None
    before = said[max(0, start - 12) : start].rstrip("<\"' ")
    picture = before.endswith("src=") or (
        before.endswith("](")
        and said.rfind("![", max(0, start - 300), start) > said.rfind("](", max(0, start - 300), start - 2)
    )
    if not any(map(_knows, slots)):
        return ("image-slot" if picture else "link-slot"), 0.2 if picture and "?" in path else 0.1
    strange = any(each[0] in "[<" for each in slots) or "?" in path or picture
    return ("image-slot", None) if picture else ("link-slot", None if strange or "prompt" in link else 0.4)


def _knows(slot: str) -> bool:
    """Whether a place for data is one for what a model knows."""
    return _KNOWS.search(slot[1:-1].strip("{}$ ").replace("_", " ")) is not None


def _of_host(host: str, path: str) -> Iterator[tuple[str, float | None]]:
    if host.startswith("["):
        name = host[1:].partition("]")[0]
        if ":" not in name or name.strip(_HEX + ":.%"):
            return
        if name.startswith("fd00:ec2") or name.endswith("a9fe:a9fe") or "169.254.169.254" in name:
            yield "metadata-host", None
        else:
            yield (
                ("internal-host" if name in ("::1", "::") or name.startswith(("fe80", "fc", "fd")) else "bare-address"),
                None,
            )
        return
    name = host.partition(":")[0].rstrip(".,;!)")
    if not name:
        return
    labels = name.split(".")
    for first in range(max(0, len(labels) - 4), len(labels)) if labels[-1] in _TOPS else ():
        rule = _HOSTS.get(".".join(labels[first:]))
        if rule is not None:
            yield rule, None
            return
    digit = name[0].isdigit()
    if digit and _FOUR_NUMBERS.fullmatch(name) is not None:
        if all(int(each[:4]) < 256 for each in labels):
            yield ("internal-host" if _internal(labels) else "bare-address"), None
    elif digit and all(each[:1].isdigit() for each in labels):
        if len(labels) <= 4 and (len(name) >= 8 or "x" in name) and all(map(_number, labels)):
            yield "odd-address", None
    elif (
        name == "localhost"
        or labels[-1] in ("internal", "local", "localdomain", "lan")
        or name.endswith(".svc.cluster")
    ):
        yield "internal-host", 0.2 if name == "localhost" else None
    elif labels[-1] in _TOPS and path.startswith(_BOT_PATHS.get(".".join(labels[-2:]), ("\n",))):
        yield "bot-hook", None
    elif len(name) > 44 and any(_random(each) for each in labels[:-2]):
        yield "long-label", None


def _number(label: str) -> bool:
    return label.isdecimal() or (label.startswith("0x") and not label[2:].strip(_HEX))


def _internal(labels: list[str]) -> bool:
    first, second = int(labels[0]), int(labels[1])
    return first in (0, 10, 127) or (first, second) in ((192, 168), (169, 254)) or (first == 172 and 16 <= second < 32)


def _random(label: str) -> bool:
    """Long, and by its digits or its lack of words no name that a person chose."""
    if _LABEL.fullmatch(label) is None:
        return False
    digits, vowels = sum(map(str.isdigit, label)), sum(each in "aeiou" for each in label)
    return label.count("-") < 3 and (digits >= 5 or vowels * 5 < len(label))


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
    place = 0
    for _ in range(MOST):
        place = text.find("://", place)
        if place < 0:
            return
        start = place + 3
        piece = text[start : start + 80]
        end = min((at for at in map(piece.find, "/?#) \"'<>\n\t") if at >= 0), default=len(piece))
        host = piece[:end]
        if not host.isascii() and any(len(_scripts(label)) > 1 for label in host.split(".")):
            yield _WEIGHTS["look-alike"], "look-alike", view, text, start, start + end
        place = start


def _scripts(label: str) -> set[str]:
    found = {unicodedata.name(each, "").split(" ", 1)[0] for each in label if each.isalpha()}
    return found.intersection(_SCRIPTS)
