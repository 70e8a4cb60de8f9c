"""What an answer must not tell, masked: secrets that this process knows, what has the form of a key, and the canary.

An answer that comes piece by piece is held back by a tail, so that nothing leaves of which the rest is still to come.
Within it are always the last `HELD` characters, and all of a run of ASCII without a space, as keys are, up to
`LONGEST_RUN`; from what was found on, all is held until it ends, up to `MOST_HELD`. Where much waits, it may wait for
`STEP` more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from circuit_script.judgment.verdict import Finding
from circuit_script.telemetry.redact import KNOWN

_BREAK = re.compile(r"[^!-~]")
HELD = 64
LONGEST_RUN = 4_096
STEP = 256  # characters: what waits is not looked at again for fewer
MOST_HELD = 8_500  # a private key has at most 8,000, and its two lines
CONTEXT = 64  # characters that have left, by which what follows is understood ("Bearer …")
WORDS = frozenset({"content", "text", "refusal", "reasoning", "reasoning_content"})  # of a message; the rest is data

Find = Callable[[str, bool], Sequence[Finding]]
"""What is to be masked in a text; False for one of which only what is known by itself may be: arguments are JSON."""


def without(text: str, found: Sequence[Finding], start: int = 0, end: int | None = None) -> str:
    """The text from ``start`` to ``end`` with what was found masked."""
    from circuit_script.judgment.residue import masked

    end = len(text) if end is None else end
    clipped = [
        replace(each, span=(max(each.span[0], start) - start, min(each.span[1], end) - start))
        for each in found
        if each.span[0] < end and each.span[1] > start
    ]
    return masked(text[start:end], clipped) if clipped else text[start:end]


def in_whole(value: Any, find: Find, name: str = "") -> Any:
    """A whole answer, masked in all its texts."""
    match value:
        case str():
            value = KNOWN.without(value) if KNOWN.any else value
            return without(value, find(value, name in WORDS)) if value else value
        case dict():
            return {key: in_whole(each, find, str(key)) for key, each in value.items()}
        case list():
            return [in_whole(each, find, name) for each in value]
    return value


@dataclass(slots=True)
class Tail:
    """One text that comes in pieces."""

    find: Find
    words: bool
    _held: str = ""
    _left: str = ""  # the end of what has left, as it was
    _next: int = 0  # characters from which on it is looked at again

    def add(self, piece: str) -> str:
        """What may leave now."""
        self._held += piece
        return self._leave(_boundary(self._held)) if len(self._held) >= self._next else ""

    def rest(self) -> str:
        """No more comes."""
        return self._leave(len(self._held), last=True)

    def _leave(self, upto: int, last: bool = False) -> str:
        if upto <= 0:
            return ""
        if KNOWN.any and (plain := KNOWN.without(self._held)) != self._held:
            self._held = plain
            upto = len(plain) if last else _boundary(plain)
        text, start = self._left + self._held, len(self._left)
        found = self.find(text, self.words)
        if not last:
            upto = _before(found, upto + start, len(text)) - start
        self._next = 0
        if upto <= 0:
            self._next = len(self._held) + STEP
            return ""
        leaves = without(text, found, start, start + upto)
        self._left, self._held = text[: start + upto][-CONTEXT:], self._held[upto:]
        return leaves


def _boundary(text: str) -> int:
    """Up to where a text may leave of which more comes."""
    at = len(text) - HELD
    if at <= 0 or not (_in_run(text[at - 1]) and _in_run(text[at])):
        return at
    begins = max((each.end() for each in _BREAK.finditer(text, 0, at)), default=0)
    least = len(text) - LONGEST_RUN
    if least <= begins:
        return begins
    return least if begins or least >= STEP else 0


def _in_run(character: str) -> bool:
    return "!" <= character <= "~"


def _before(found: Sequence[Finding], upto: int, length: int) -> int:
    """The same, before what was found and may not be at its end."""
    for start, end in sorted((each.span for each in found), reverse=True):
        if start < upto < end and length - start <= MOST_HELD:
            upto = start
    return upto


Place = tuple[int, str, int]
"""Of a text in a stream: its choice, its name, and of which call of a tool it is."""


@dataclass(slots=True)
class StreamMask:
    """The events of a stream, masked. ``ended`` is called once, when no more comes."""

    find: Find
    ended: Callable[[], None]
    _tails: dict[Place, Tail] = field(default_factory=dict)
    _like: Mapping[str, Any] = field(default_factory=dict)

    def events(self, data: bytes, chunk: Mapping[str, Any]) -> list[bytes]:
        """What the child gets of an event; before one in which something else begins, the rest of what was."""
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return [data]
        self._like = {name: value for name, value in chunk.items() if name not in ("choices", "usage")}
        before: list[bytes] = []
        shown = [self._choice(each, before) for each in choices if isinstance(each, dict)]
        return [*before, msgspec.json.encode({**chunk, "choices": shown})]

    def rest(self) -> list[bytes]:
        """What is left of all texts at the end."""
        found = self._rest(list(self._tails))
        self.ended()
        return found

    def _choice(self, choice: Mapping[str, Any], before: list[bytes]) -> Mapping[str, Any]:
        """A choice as it may be told; what must be told before it is added to ``before``."""
        place, delta = _index(choice), choice.get("delta")
        texts = {(place, *key): text for key, text in _texts(delta)} if isinstance(delta, dict) else {}
        over = choice.get("finish_reason") is not None
        if texts or over:
            before += self._rest([key for key in self._tails if key[0] == place and key not in texts])
        leaving = {key[1:]: self._leaving(key, text, over) for key, text in texts.items()}
        shown: dict[str, Any] = in_whole(choice, self.find)
        _replaced(shown.get("delta"), leaving)
        return shown

    def _leaving(self, key: Place, text: str, over: bool) -> str:
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = Tail(self.find, key[1] in WORDS)
        return tail.add(text) + (tail.rest() if over else "")

    def _rest(self, keys: Sequence[Place]) -> list[bytes]:
        found = []
        for place, name, index in keys:
            if text := self._tails[place, name, index].rest():
                delta = _replaced({}, {(name, index): text})
                choice = {"index": place, "delta": delta, "finish_reason": None}
                found.append(msgspec.json.encode({**self._like, "choices": [choice]}))
        return found


def _texts(delta: Mapping[str, Any]) -> Iterator[tuple[tuple[str, int], str]]:
    """What is said in a piece, by its name and the number of the call of a tool."""
    for name in WORDS & delta.keys():
        if isinstance(text := delta[name], str) and text:
            yield (name, 0), text
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict) and (text := _arguments(call.get("function"))):
            yield ("tool_calls", _index(call)), text
    if text := _arguments(delta.get("function_call")):
        yield ("function_call", 0), text


def _replaced(delta: Any, texts: Mapping[tuple[str, int], str]) -> Any:
    """A piece with these texts in the place of its own."""
    for (name, index), text in texts.items():
        match name:
            case "tool_calls":
                calls = delta.setdefault(name, [{"index": index}])
                for call in calls:
                    if isinstance(call, dict) and _index(call) == index:
                        call["function"] = {**(call.get("function") or {}), "arguments": text}
            case "function_call":
                delta[name] = {**(delta.get(name) or {}), "arguments": text}
            case _:
                delta[name] = text
    return delta


def _arguments(function: Any) -> str:
    text = function.get("arguments") if isinstance(function, dict) else None
    return text if isinstance(text, str) else ""


def _index(given: Mapping[str, Any]) -> int:
    index = given.get("index")
    return index if isinstance(index, int) else 0
