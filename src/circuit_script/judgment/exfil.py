"""Level 11: ways by which data leave: links with places for data, hosts that collect, and orders to send."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from circuit_script.judgment.page import Page, View
from circuit_script.judgment.rules import Together, compiled, data, readable, rules
from circuit_script.judgment.verdict import Finding

LEVEL = "exfil"
MOST = 1000  # links that are looked at
MOST_FINDINGS = 20  # the surest
MOST_SAID = 50  # places of one order
LONGEST = 1000  # characters of a link

_RULES = rules(LEVEL)
_HOSTS: dict[str, str] = {
    host: rule
    for family, rule in (
        ("collectors", "collector"), ("tunnels", "tunnel"), ("pastes", "tunnel"), ("metadata", "metadata-host"),
    )
    for host in data(LEVEL)["hosts"][family]
}  # fmt: skip
_SLOT = r"\{\{[^{}]{1,80}\}\}|\$?\{[^{}]{1,60}\}|\[[^\[\]\n()]{1,60}\]|<[a-z][a-z_ -]{1,60}>|%7b%7b[^%\s]{1,60}%7d%7d"
# These two read one link: Python's own cost a tenth of RE2's for each. They take linear time: what comes again is
# bounded, or has nothing behind it for which it would go back.
_LINK = re.compile(
    rf"\b(?:https?|ftp|gopher|dict|ldap|jar|file|php|sftp|smb|wss?)://(?:{_SLOT}|[^\s\"'<>()\[\]{{}}`|\\])+",
    re.ASCII | re.IGNORECASE,
)
_IN_SLOT = re.compile(_SLOT, re.ASCII | re.IGNORECASE)
# What a link has that is looked at closely; most have nothing of it, however many there are.
_CLOSELY = compiled(
    r"://(?:[^\s\"'<>()/?#]*@|\[|0x|\d[\dx.]*(?:[^\w.-]|$)|[^\s\"'<>()/?#@]*(?:[a-z0-9=_-]{40}"
    r"|localhost|\.internal|\.local|\.lan|svc\.cluster|discord|api\.telegram|"
    + "|".join(each.replace(".", r"\.") for each in _HOSTS)
    + "))"
)
_PLACE = compiled(rf"[/=&?#.+_-](?:{_SLOT})")
_KNOWS = compiled(
    r"(?:^|[^a-z])(?:conversation|chat|history|secrets?|passw\w*|pwd|api[ _-]?key|(?:access|auth"
    r"|session)[ _-]?token|system[ _-]?prompt"
    r"|prompt|instructions?|memory|context|credentials?|ssn|credit[ _-]?card|card[ _-]?number|(?:user|private"
    r"|sensitive|exfil|stolen)[ _-]?(?:data|info|input|messages?)"
    r"|exfil|inbox|e-?mails|messages|base64\w*|b64\w*|previous|summary|answer|response|output|data|private|env"
    r"|cookies?|document|contents?)(?:$|[^a-z])"
)  # fmt: skip
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


def may_leave(plain: str) -> bool:
    """Whether a text in ASCII has any sign of a way out; without one, there is none."""
    return _MAY_LEAVE.search(plain) is not None


def exfil(page: Page) -> list[Finding]:
    """Each way out in a text and in what was decoded of it."""
    findings: list[Finding] = []
    for view in page.views:
        _of_view(view, findings)
    if "://" in page.text and not page.text.isascii():
        findings += _look_alikes(page.text)
    return sorted(findings, key=lambda each: -each.score)[:MOST_FINDINGS]


def _of_view(view: View, findings: list[Finding]) -> None:
    said = readable(view.plain)
    signs = _SIGNS.of(said)
    if "sink" not in signs:
        return
    _phrases(view, said, signs, findings)
    if "://" in said:
        for start, end in _odd_links(said):
            for name, score in _of_link(said, start, end):
                findings.append(_RULES[name].found(LEVEL, view.span(start, end), said[start:end], score))
    if "script:" in said or "data:" in said or "file:" in said or any(each in said for each in _RARE_SCHEMES):
        for count, match in enumerate(_SCHEME.finditer(said)):
            if count >= MOST:
                break
            start, end = match.start(1), min(match.end(1) + 60, len(said))
            findings.append(_RULES["scheme"].found(LEVEL, view.span(start, end), said[start:end]))
    if "mailto:" in said:
        _mails(view, said, findings)
    if "](" in said:
        _other_hosts(view, said, findings)


def _odd_links(said: str) -> Iterator[tuple[int, int]]:
    """From where to where the links stand that have something to look at, each once."""
    places = []
    for count, match in enumerate(_CLOSELY.finditer(said)):
        if count >= MOST:
            break
        places.append(match.start())
    if any(each in said for each in ("{", "[", "<", "%7b")):
        for count, match in enumerate(_PLACE.finditer(said)):
            if count >= MOST:
                break
            at = said.rfind("://", max(0, match.start() - LONGEST // 2), match.start() + 1)
            if at >= 0 and len(said[at : match.start() + 1].split(None, 1)) == 1:
                places.append(at)
    end = -1
    for at in sorted(set(places)):
        start = at
        while start > 0 and at - start < 6 and said[start - 1].isalpha():
            start -= 1
        link = _LINK.search(said[start : start + LONGEST]) if start >= end else None
        if link is not None:
            end = start + link.end()
            yield start + link.start(), end


def _phrases(view: View, said: str, signs: set[str], findings: list[Finding]) -> None:
    hints = [*_HINTS] if "hint" in signs else ["secrets"]
    names = [name for hint in hints if hint in signs for name in _HINTS[hint] if signs.issuperset(_NEEDS.get(name, ()))]
    for name in dict.fromkeys(names):
        for count, match in enumerate(_PHRASES[name].finditer(said)):
            if count >= MOST_SAID:
                break
            start, end = match.span()
            denied = any(each in said[max(0, start - 24) : start] for each in _NOT)
            score = _RULES[name].weight * (0.3 if denied else 1.0)
            findings.append(_RULES[name].found(LEVEL, view.span(start, end), said[start:end], score))


def _of_link(said: str, start: int, end: int) -> Iterator[tuple[str, float | None]]:
    link = said[start:end]
    scheme, _, rest = link.partition("://")
    place = min((at for at in map(rest.find, "/?#\\") if at >= 0), default=len(rest))
    authority, path = rest[:place], rest[place:]
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
    slots = [match[0] for match in _IN_SLOT.finditer(link)]
    if not slots or link.startswith(("http://[", "https://[")):
        return None
    before = said[max(0, start - 12) : start].rstrip("<\"' ")
    picture = before.endswith("src=") or (
        before.endswith("](")
        and said.rfind("![", max(0, start - 300), start) > said.rfind("](", max(0, start - 300), start - 2)
    )
    knows = any(_KNOWS.search(each[1:-1].strip("{}$ ").replace("_", " ")) is not None for each in slots)
    if not knows:
        return ("image-slot" if picture else "link-slot"), 0.2 if picture and "?" in path else 0.1
    strange = any(each[0] in "[<" for each in slots) or "?" in path or picture
    return ("image-slot", None) if picture else ("link-slot", None if strange or "prompt" in link else 0.4)


def _of_host(host: str, path: str) -> Iterator[tuple[str, float | None]]:
    if host.startswith("["):
        name = host[1:].partition("]")[0]
        if ":" not in name or not all(each in "0123456789abcdef:.%" for each in name):
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
    for first in range(max(0, len(labels) - 4), len(labels)):
        rule = _HOSTS.get(".".join(labels[first:]))
        if rule is not None:
            yield rule, None
            return
    if name[0].isdigit() and all(each[:1].isdigit() for each in labels):
        yield from _of_number(name, labels)
    elif (
        name == "localhost"
        or labels[-1] in ("internal", "local", "localdomain", "lan")
        or name.endswith(".svc.cluster")
    ):
        yield "internal-host", 0.2 if name == "localhost" else None
    elif path.startswith(_BOT_PATHS.get(".".join(labels[-2:]), ("\n",))):
        yield "bot-hook", None
    elif len(name) > 44 and any(_random(each) for each in labels[:-2]):
        yield "long-label", None


def _of_number(name: str, labels: list[str]) -> Iterator[tuple[str, float | None]]:
    plain = len(labels) == 4 and all(each.isdecimal() and (each == "0" or each[0] != "0") for each in labels)
    if plain:
        if all(int(each[:4]) < 256 for each in labels):
            yield ("internal-host" if _internal(labels) else "bare-address"), None
    elif all(_number(each) for each in labels) and (len(labels) <= 4 and (len(name) >= 8 or "x" in name)):
        yield "odd-address", None


def _number(label: str) -> bool:
    return label.isdecimal() or (label.startswith("0x") and all(each in "0123456789abcdef" for each in label[2:]))


def _internal(labels: list[str]) -> bool:
    first, second = int(labels[0]), int(labels[1])
    return first in (0, 10, 127) or (first, second) in ((192, 168), (169, 254)) or (first == 172 and 16 <= second < 32)


def _random(label: str) -> bool:
    """Long, and by its digits or its lack of words no name that a person chose."""
    if _LABEL.fullmatch(label) is None:
        return False
    digits, vowels = sum(map(str.isdigit, label)), sum(each in "aeiou" for each in label)
    return label.count("-") < 3 and (digits >= 5 or vowels * 5 < len(label))


def _mails(view: View, said: str, findings: list[Finding]) -> None:
    place = 0
    for _ in range(MOST):
        place = said.find("mailto:", place)
        if place < 0:
            return
        end = min(
            (at for at in (said.find(each, place, place + 600) for each in "\"'>)") if at >= 0), default=place + 300
        )
        end = min(end, len(said))
        body = said.find("body=", place, end)
        if body >= 0:
            slots = [match[0] for match in _IN_SLOT.finditer(said[body : end + 1])]
            if any(_KNOWS.search(each[1:-1].strip("{}$ ").replace("_", " ")) is not None for each in slots):
                findings.append(_RULES["mail"].found(LEVEL, view.span(place, end), said[place:end]))
        place += 7


def _other_hosts(view: View, said: str, findings: list[Finding]) -> None:
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
            end = place + 2 if end < 0 else end + 1
            findings.append(_RULES["other-host"].found(LEVEL, view.span(start, end), said[start:end]))


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


def _look_alikes(text: str) -> Iterator[Finding]:
    """Hosts one of whose labels has letters of two scripts that look alike."""
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
            yield _RULES["look-alike"].found(LEVEL, (start, start + end), host)
        place = start


def _scripts(label: str) -> set[str]:
    found = {unicodedata.name(each, "").split(" ", 1)[0] for each in label if each.isalpha()}
    return found.intersection(_SCRIPTS)
