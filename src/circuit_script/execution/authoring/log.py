"""CircuitLog: the author's log, and what the author's code prints."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, TextIO, cast

from circuit_script.execution.session import active

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_LINE = 16 * 1024


class CircuitLog:
    """Lines of the execution's log; ``fields`` become searchable context. Outside an execution they go nowhere."""

    @staticmethod
    def debug(message: object, **fields: Any) -> None:
        _write("debug", message, fields)

    @staticmethod
    def info(message: object, **fields: Any) -> None:
        _write("info", message, fields)

    @staticmethod
    def warning(message: object, **fields: Any) -> None:
        _write("warning", message, fields)

    @staticmethod
    def error(message: object, **fields: Any) -> None:
        _write("error", message, fields)


log = CircuitLog


def _write(level: str, message: object, fields: dict[str, Any]) -> None:
    if (session := active()) is not None:
        session.log({"level": level, "message": _text(message), "context": fields})


def _text(message: object) -> str:
    """The message in words, also when its own __str__ fails: a log never fails its handler."""
    try:
        return str(message)[:MAX_LINE]
    except Exception as error:
        return f"{type(message).__name__} (it cannot be shown: its __str__ raised {type(error).__name__})"


class Divided:
    """stdout or stderr of a child in which several executions run: each has lines of its own."""

    def __init__(self, level: str) -> None:
        self._level = level
        self._nowhere = Printed.stream(level)

    @classmethod
    def stream(cls, level: str) -> TextIO:
        """What stands for a text stream like sys.stdout."""
        return cast(TextIO, cls(level))

    def __getattr__(self, name: str) -> Any:
        if (session := active()) is None:
            return getattr(self._nowhere, name)
        if self._level not in session.printed:
            session.printed[self._level] = Printed.stream(self._level)
        return getattr(session.printed[self._level], name)


class Printed(io.RawIOBase):
    """What stands under stdout or stderr in a child: its lines become log lines."""

    def __init__(self, level: str) -> None:
        self._level = level
        self._open = b""

    @classmethod
    def stream(cls, level: str) -> TextIO:
        """A text stream like sys.stdout."""
        return io.TextIOWrapper(
            io.BufferedWriter(cls(level), 1024), encoding="utf-8", errors="replace", line_buffering=True
        )

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        chunk = bytes(data)
        *lines, self._open = (self._open + chunk).split(b"\n")
        if len(self._open) > MAX_LINE:
            lines, self._open = [*lines, self._open], b""
        for line in lines:
            if line:
                _write(self._level, line.decode("utf-8", "replace"), {})
        return len(chunk)

    def finish(self) -> None:
        """What has no line break is a line, too: nothing more comes."""
        if self._open:
            self.write(b"\n")


def finish_lines(stream: TextIO | None) -> None:
    """Send what was written to a stream of ours and is no whole line."""
    if stream is None:
        return
    stream.flush()
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if isinstance(raw, Printed):
        raw.finish()
