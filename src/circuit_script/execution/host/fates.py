"""What becomes of children, in words."""

from __future__ import annotations

import signal

from circuit_script.execution.protocol import CUT_OFF

CLOSED = "the handler closed its connection to the platform"
HOST_ENDED = "the process that hosts the handlers ended"
STOPPED = "the worker stops"
MUTE = "the process said nothing"
GARBAGE = "the handler wrote garbage on its connection to the platform"


def told(code: int | None) -> str:
    """Why a process with this code ended: negative for a signal, None where nobody knows."""
    match code:
        case None:
            return "the handler's process ended"
        case code if code == CUT_OFF:
            return CLOSED
        case code if code < 0:
            return f"the handler's process was killed by {_name_of_signal(-code)}"
        case _:
            return f"the handler left its process with exit code {code}"


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # of those for real time only the first and the last have names
        return f"signal {number}"
