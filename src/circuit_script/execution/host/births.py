"""Children that do not live to greet: they are counted, and others are made ever later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from circuit_script.execution.host.child_link import ChildLink
from circuit_script.execution.host.fates import HOST_ENDED, STOPPED

LATE = 3  # times in a row that none appears before it is an alarm, and nobody waits for one any longer
FIRST_PAUSE, LAST_PAUSE = 0.05, 5.0  # seconds until others are made
NOT_BORN = (
    "no process can be made for it: {}. "
    "Look at @on_child_start and os.register_at_fork in the app and in what it imports"
)

_logger = logging.getLogger(__name__)


class Unborn(Exception):
    """No child appears; the message says why."""


class Births:
    """How it goes with new children. ``again`` makes others; ``give_up`` tells those who wait for one."""

    def __init__(self, again: Callable[[], None], give_up: Callable[[Unborn], None]) -> None:
        self._again = again
        self._give_up = give_up
        self._failed = 0  # times in a row
        self._timer: asyncio.TimerHandle | None = None

    @property
    def paused(self) -> bool:
        """Whether none is made for a while."""
        return self._timer is not None

    def on_ready(self) -> None:
        """One has appeared."""
        self._failed = 0

    def on_gone(self, child: ChildLink) -> None:
        """One is gone. Those that die of the same together count once."""
        if not child.pid or child.ready or self._timer is not None or child.fate in (HOST_ENDED, STOPPED):
            return
        pause = min(FIRST_PAUSE * 2**self._failed, LAST_PAUSE)
        _logger.error("a new child ended before it could take a run (%s): others follow in %g s", child.fate, pause)
        self._timer = asyncio.get_running_loop().call_later(pause, self._go_on)
        self._fail(child.fate)

    def stop(self) -> None:
        """Make no others later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        self._timer = None
        self._again()

    def _fail(self, why: str) -> None:
        self._failed = min(self._failed + 1, 64)
        if self._failed >= LATE:
            said = NOT_BORN.format(why)
            _logger.critical("no batch can run, %d times in a row: %s.", self._failed, said)
            self._give_up(Unborn(said))
