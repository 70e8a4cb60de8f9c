"""What was said, without what is new each time it is said: ids, times, and where a stream was cut into pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

DEEPEST = 6  # what of a delta is nested deeper is passed over
SAID = ("role", "content", "refusal", "name", "function_call")  # of a message, beside its calls of tools


@dataclass(frozen=True, slots=True)
class Words:
    """An answer. ``whole`` is a hash of all of it, ``asks`` of what it wants tools to do, else of all of it; ``spoke``
    whether it says anything, ``cut`` whether it ended for want of tokens."""

    whole: bytes
    asks: bytes
    spoke: bool
    cut: bool


def hashed(said: Any) -> bytes:
    """A hash that is equal for equal values."""
    return digest(msgspec.json.encode(said, order="deterministic"))


def digest(said: bytes) -> bytes:
    return hashlib.blake2b(said, digest_size=16).digest()


def plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as it would be said again."""
    found = {name: message[name] for name in SAID if message.get(name)}
    if calls := message.get("tool_calls"):
        found["tool_calls"] = [_call(each) for each in calls] if isinstance(calls, list) else calls
    return found


def words_of(choices: Iterable[Any]) -> Words:
    """The words of a completion's choices."""
    said = [each for each in choices if isinstance(each, dict)]
    messages = [plain(each["message"]) if isinstance(each.get("message"), dict) else {} for each in said]
    ends = [each.get("finish_reason") for each in said]
    calls = [each["tool_calls"] for each in messages if "tool_calls" in each]
    spoke = any(set(each) - {"role"} for each in messages) or any(_thought(each.get("message")) for each in said)
    whole = hashed([messages, ends])
    return Words(whole, hashed(calls) if calls else whole, spoke, "length" in ends)


def _thought(message: Any) -> bool:
    """Whether there is anything in it that we do not know by name, like ``reasoning_content``."""
    return isinstance(message, dict) and any(value for name, value in message.items() if name != "role")


def _call(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    return {name: _arguments(value) for name, value in call.items() if name not in ("id", "index")}


def _arguments(value: Any) -> Any:
    """Arguments are a text of JSON: spaces and order do not matter."""
    if not isinstance(value, dict) or not isinstance(text := value.get("arguments"), str):
        return value
    try:
        return {**value, "arguments": msgspec.json.encode(msgspec.json.decode(text), order="deterministic").decode()}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return value


@dataclass(slots=True)
class Pieces:
    """The deltas of a stream, put together as the completion that they stand for."""

    _texts: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)
    _ends: dict[int, str] = field(default_factory=dict)

    @property
    def spoke(self) -> bool:
        """Whether anything was said so far."""
        return any(path[1] != "role" for path in self._texts)

    def add(self, choices: Any) -> None:
        """Take a chunk's choices. What is no choice is passed over."""
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            place = _place(choice)
            if isinstance(choice.get("finish_reason"), str):
                self._ends[place] = choice["finish_reason"]
            if isinstance(delta := choice.get("delta"), dict):
                self._take((place,), delta)

    def words(self) -> Words:
        """Words that equal those of the whole completion."""
        choices: dict[int, dict[str, Any]] = {place: {} for place in sorted(self._ends)}
        for path, texts in self._texts.items():
            inner: Any = choices.setdefault(path[0], {})
            for name in path[1:-1]:
                inner = inner.setdefault(name, {}) if isinstance(inner, dict) else None
            if isinstance(inner, dict):
                inner[path[-1]] = "".join(texts)
        whole = []
        for place in sorted(choices):
            message = choices[place]
            if isinstance(calls := message.get("tool_calls"), dict):
                message["tool_calls"] = [calls[each] for each in sorted(calls)]
            whole.append({"message": {"role": "assistant", **message}, "finish_reason": self._ends.get(place)})
        return words_of(whole)

    def _take(self, path: tuple[Any, ...], delta: Mapping[str, Any]) -> None:
        for name, value in delta.items():
            match value:
                case str() if name in ("role", "id", "type") and value:
                    self._texts[*path, name] = [value]
                case str() if value:
                    self._texts.setdefault((*path, name), []).append(value)
                case dict() if len(path) < DEEPEST:
                    self._take((*path, name), value)
                case list() if name == "tool_calls":
                    for each in value:
                        if isinstance(each, dict):
                            self._take((*path, name, _place(each)), each)


def _place(given: Mapping[str, Any]) -> int:
    place = given.get("index")
    return place if isinstance(place, int) else 0
