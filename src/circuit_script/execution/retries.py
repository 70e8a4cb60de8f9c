"""How often a trigger is tried: its ``Retries``, and what an exception says of another attempt."""

from __future__ import annotations

import email.utils
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from circuit_script.errors import ConfigError

MOST_ATTEMPTS = 1000
LONGEST = 30 * 86_400.0  # seconds
MOST_KINDS, LONGEST_NAME = 20, 200
UNFIT = "circuit_script:unfit"  # the kind of a failure of a record that does not fit its schema: it never will
LATER = (429, 503)  # answers whose Retry-After counts


@dataclass(frozen=True, slots=True)
class Retries:
    """How a trigger is tried again. What is None is as circuit.toml says under [worker].

    ``attempts`` are those in all; the delay before the next one is random, up to ``backoff`` seconds at first and up to
    twice as much each time; ``hold`` are the seconds for which a retry holds its record's later events. An exception of
    a class in ``permanent``, or of a subclass, is tried no more: its event becomes a dead letter at once.

    Raises ConfigError for what cannot be.
    """

    attempts: int | None = None
    backoff: float | None = None
    hold: float | None = None
    permanent: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        whole = isinstance(self.attempts, int) and not isinstance(self.attempts, bool)
        if self.attempts is not None and not (whole and 1 <= self.attempts <= MOST_ATTEMPTS):
            raise _wrong("attempts", self.attempts, f"a whole number from 1 to {MOST_ATTEMPTS:,}")
        for name in ("backoff", "hold"):
            seconds = getattr(self, name)
            number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
            if seconds is not None and not (number and 0 <= seconds <= LONGEST):
                raise _wrong(name, seconds, f"seconds from 0 to {LONGEST:,.0f} (30 days)")
        several = isinstance(self.permanent, (tuple, list, set, frozenset))
        for each in self.permanent if several else [self.permanent]:
            if not (isinstance(each, str) or (isinstance(each, type) and issubclass(each, Exception))):
                raise _wrong("permanent", each, "classes of exceptions, like (ValueError,)")
        classes = self.permanent if several else (self.permanent,)
        object.__setattr__(self, "permanent", tuple(classes))

    def named(self) -> Retries:
        """The same, with the names of its classes: such a one can be stored and sent."""
        return replace(self, permanent=tuple(map(_name, self.permanent)))


def kinds_of(error: BaseException) -> list[str]:
    """The names of the exception's class and of those above it, up to Exception."""
    try:
        return [_name(kind)[:LONGEST_NAME] for kind in type(error).__mro__[:MOST_KINDS] if issubclass(kind, Exception)]
    except Exception:  # an author's class may be anything
        return []


def retry_after(error: BaseException) -> float:
    """The seconds that a vendor asked for, where the exception holds its answer of 429 or 503; or that the platform
    did, which refused the callout (``retry_after``). Else 0."""
    try:
        said: Any = getattr(error, "retry_after", None)
        if isinstance(said, (int, float)):
            return min(max(0.0, float(said)), LONGEST)
        answer: Any = getattr(error, "response", None)
        status = getattr(answer, "status_code", getattr(answer, "status", None))
        if status not in LATER:
            return 0.0
        return min(max(0.0, _seconds(str(answer.headers.get("retry-after") or "0"))), LONGEST)
    except Exception:  # an author's exception may hold anything
        return 0.0


def _seconds(said: str) -> float:
    """What a Retry-After says: seconds, or the date of that moment (RFC 9110, 10.2.3). Raises ValueError."""
    try:
        seconds = float(said)
    except ValueError:
        seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
    return seconds if seconds < sys.float_info.max else 0.0


def _wrong(name: str, value: object, cure: str) -> ConfigError:
    return ConfigError(f"retries.{name} is {value!r}.", cure=f"Write {cure}.")


def _name(kind: Any) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
