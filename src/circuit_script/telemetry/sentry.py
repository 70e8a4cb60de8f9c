"""Errors for Sentry, or for what speaks its protocol: failed executions, and the platform's own.

What leaves is what an error is about, where in the code it arose, and which execution, handler, release and tenant had
it: never a payload, never a variable, and every text is redacted. Nothing waits for it: the SDK sends from a thread of
its own with a bounded queue, and of a flood only the first errors of a second are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any

import structlog

from circuit_script.config import Settings
from circuit_script.errors import StartError
from circuit_script.telemetry.at_most import AtMost
from circuit_script.telemetry.redact import Redactor

if TYPE_CHECKING:
    import sentry_sdk

PER_SECOND = 5.0  # errors that are told; of more only how many there were
AT_ONCE = 20
QUEUED = 100  # events that wait to be sent; more are dropped
LEAVING = 2.0  # seconds at the end in which what waits may still leave
LONGEST = 500  # characters of one text
FRAMES = 50
ERRORS = frozenset({"error", "exception", "critical"})  # structlog's methods that tell of one

_FRAME = re.compile(r' {2}File "([^"\n]{1,400}\.py|<[\w .-]{1,80}>)", line (\d{1,9}),? in ([\w<>.]{1,120})')
_KIND = re.compile(r"^([A-Za-z_][\w.]{0,100}): (.*)", re.DOTALL)
_BEGINS = "Traceback (most recent call last):"
_STACK_BEGINS = "(most recent call first):"  # of a handler that was interrupted
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|\b\d[\d.,]*|\b[0-9a-fA-F-]{16,}\b")

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """An execution that failed. ``detail`` is its traceback, or what its handler was doing."""

    execution: str
    handler: str
    tenant: str
    release: int
    status: str
    reason: str
    detail: str = ""
    object: str = ""
    event: str = ""
    records: int = 0


class Sentry:
    """Where errors of one process go. Nothing of it waits."""

    def __init__(self, client: sentry_sdk.Client, redactor: Redactor, role: str) -> None:
        self._client = client
        self._redactor = redactor
        self._role = role
        self._most = AtMost(PER_SECOND, AT_ONCE)
        self._untold = 0
        self._own = threading.local()  # what the SDK logs while a thread tells is no error of ours
        self._handler = _Handler(self)

    def failed(self, failure: Failure) -> None:
        """Tell of an execution that failed."""
        if self._may():
            self._tell(self._of_execution, failure)

    def _of_execution(self, failure: Failure) -> Event:
        # As a whole: in a part of it a secret may no longer look like one.
        kind, said = _kind_of(failure.status, self._redactor.text(_line(failure.reason)))
        frames = _frames_of(failure.detail)
        # What differs from one record to the next must not make a new error of each.
        where = [frames[-1]["filename"], frames[-1]["function"]] if frames else [_VARIES.sub("…", _line(said))[:100]]
        return _event(kind, said, frames, {
            "logger": "circuit_script.executions",
            "transaction": failure.handler,
            "release": str(failure.release),
            "fingerprint": [failure.handler, failure.status, kind, *where],
            "tags": {
                "execution": failure.execution,
                "handler": failure.handler,
                "tenant": failure.tenant,
                "release": str(failure.release),
                "status": failure.status,
            },
            "contexts": {
                "execution": {
                    "id": failure.execution,
                    "object": failure.object,
                    "event": self._redactor.text(failure.event),  # of an endpoint its method and path
                    "records": failure.records,
                }
            },
        })  # fmt: skip

    def own(self, name: str, fields: Mapping[str, Any], error: BaseException | None) -> None:
        """Tell of an error of the platform itself. Of each text its first line leaves: what a database says in the
        next ones is what it was given."""
        if not getattr(self._own, "busy", False) and self._may():
            self._tell(self._of_platform, name, fields, error)

    def _of_platform(self, name: str, fields: Mapping[str, Any], error: BaseException | None) -> Event:
        kind = name if error is None else type(error).__name__
        extra = self._told(fields)
        said = " ".join(f"{key}={value}" for key, value in extra.items()) if error is None else str(error)
        tags = {key: str(fields[key]) for key in ("execution", "handler", "tenant", "release") if key in fields}
        frames = _frames_at(error.__traceback__ if error is not None else None)
        return _event(kind, self._redactor.text(_line(said)), frames, {
            "logger": "circuit_script",
            "transaction": name,
            "fingerprint": [name, kind],
            "tags": tags,
            "extra": extra,
        })  # fmt: skip

    def listen(self) -> None:
        """Hear the errors that are logged in this process."""
        processors = structlog.get_config()["processors"]
        structlog.configure(processors=[self._heard, *processors])
        logging.getLogger().addHandler(self._handler)

    async def close(self) -> None:
        """Hear nothing more; what waits may leave for `LEAVING` seconds."""
        processors = structlog.get_config()["processors"]
        structlog.configure(processors=[each for each in processors if each != self._heard])
        logging.getLogger().removeHandler(self._handler)
        await asyncio.to_thread(self._client.close, timeout=LEAVING)

    def _heard(self, _: Any, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if method in ERRORS:
            fields = {key: value for key, value in line.items() if key not in ("event", "exc_info", "stack_info")}
            self.own(str(line.get("event", "error")), fields, _error_in(line.get("exc_info")))
        return line

    def _told(self, fields: Mapping[str, Any]) -> dict[str, str]:
        cut = {str(key)[:50]: _line(value) for key, value in list(fields.items())[:20]}
        return {key: str(value)[:LONGEST] for key, value in self._redactor.fields(cut).items()}

    def _tell(self, describe: Callable[..., Event], *about: Any) -> None:
        """Hand to the SDK what is described. Whatever goes wrong with that, whoever logs does not hear of it."""
        self._own.busy = True
        try:
            event: Any = describe(*about)
            event["tags"] |= {"role": self._role}
            if self._untold:
                event.setdefault("extra", {})["untold_before"] = self._untold
                self._untold = 0
            self._client.capture_event(event)
        except Exception as error:
            print(f"an error could not be told to Sentry: {type(error).__name__}", file=sys.stderr)
        finally:
            self._own.busy = False

    def _may(self) -> bool:
        if self._most.may():
            return True
        self._untold += 1
        return False


class _Handler(logging.Handler):
    """Errors that libraries, and asyncio, log."""

    def __init__(self, sentry: Sentry) -> None:
        super().__init__(logging.ERROR)
        self._sentry = sentry

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("sentry_sdk", "urllib3")):
            with contextlib.suppress(Exception):  # of a message whose arguments do not fit
                self._sentry.own(record.name, {"message": record.getMessage()}, _error_in(record.exc_info))


def init_sentry(settings: Settings, role: str) -> Sentry | None:
    """Tell of errors from now on, if a DSN is configured. Raises StartError where the SDK is missing or the DSN is
    wrong."""
    if not settings.sentry.dsn:
        return None
    try:
        import sentry_sdk  # only where it is wanted: it is an extra
    except ImportError:
        raise StartError(
            "[sentry] has a dsn, and the SDK is not installed.",
            cure="pip install 'circuit-script[sentry]', or take dsn away.",
            page="start",
        ) from None
    try:
        client = sentry_sdk.Client(
            dsn=settings.sentry.dsn,
            environment=settings.sentry.environment,
            release=f"circuit-script@{version('circuit-script')}",
            default_integrations=False,  # they would read requests, arguments and local variables
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            include_local_variables=False,
            include_source_context=False,
            max_breadcrumbs=0,
            max_request_body_size="never",
            transport_queue_size=QUEUED,
            shutdown_timeout=LEAVING,
        )
    except sentry_sdk.utils.BadDsn as error:
        raise StartError(
            f"[sentry] dsn is none: {error}", cure="Copy it once more from the project's settings.", page="start"
        ) from None
    sentry = Sentry(client, Redactor.of_settings(settings.log), role)
    sentry.listen()
    return sentry


@contextlib.asynccontextmanager
async def telling(settings: Settings, role: str) -> AsyncIterator[Sentry | None]:
    """Tell of errors meanwhile."""
    sentry = init_sentry(settings, role)
    try:
        yield sentry
    finally:
        if sentry is not None:
            await sentry.close()


def _event(kind: str, said: str, frames: list[Event], about: Event) -> Event:
    error: Event = {"type": kind, "value": said[:LONGEST], "mechanism": {"type": "circuit_script", "handled": True}}
    if frames:
        error["stacktrace"] = {"frames": frames}
    return {"level": "error", "timestamp": datetime.now(UTC).isoformat(), "exception": {"values": [error]}, **about}


def _kind_of(status: str, reason: str) -> tuple[str, str]:
    if status == "breached":
        return "LimitExceeded", reason
    found = _KIND.match(reason)
    return (found[1], found[2]) if found else (status, reason)


def _frames_of(detail: str) -> list[Event]:
    """The frames of the last traceback in a text. Its lines of code and its message stay here, so what follows the
    first line that is not indented is not read: a message may look like frames."""
    found = []
    begins = _BEGINS if _BEGINS in detail else _STACK_BEGINS
    for line in detail.rpartition(begins)[2].lstrip("\n").split("\n"):
        if not line.startswith("  "):
            break
        if frame := _FRAME.fullmatch(line):
            found.append(_frame(frame[1], int(frame[2]), frame[3]))
    return found[-FRAMES:] if begins == _BEGINS else found[:FRAMES][::-1]


def _frames_at(place: TracebackType | None) -> list[Event]:
    found = list(traceback.walk_tb(place))[-FRAMES:]
    return [_frame(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in found]


def _frame(file: str, line: int, name: str) -> Event:
    theirs = "site-packages" in file or file.startswith(("<", sys.base_prefix + "/lib/python"))
    return {"filename": file, "abs_path": file, "lineno": line, "function": name[:200], "in_app": not theirs}


def _error_in(told: Any) -> BaseException | None:
    """What ``exc_info`` stands for."""
    if isinstance(told, BaseException):
        return told
    if isinstance(told, tuple) and len(told) > 1:
        return told[1] if isinstance(told[1], BaseException) else None
    return sys.exc_info()[1] if told else None


def _line(value: Any) -> str:
    """The first line of a text, cut, but not yet to what may leave: half a secret does not look like one."""
    return str(value)[: 4 * LONGEST].partition("\n")[0]
