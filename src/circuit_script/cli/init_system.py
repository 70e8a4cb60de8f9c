"""Words for the init system that started us, if it listens (systemd's ``Type=notify`` and ``WatchdogSec=``).

The protocol is a datagram to the socket that the environment names (sd_notify(3)); roles do not inherit it.
"""

from __future__ import annotations

import contextlib
import os
import socket


class InitSystem:
    """Whoever started us. ``every`` is how often, in seconds, it wants to hear that we live; None: not at all."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        patience, meant = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        wanted = self._address and patience.isdigit() and meant in ("", str(os.getpid()))
        self.every = int(patience) / 1e6 / 3 if wanted and int(patience) else None

    def ready(self) -> None:
        """All that must run does."""
        self._say("READY=1")

    def alive(self) -> None:
        """We are not stuck."""
        self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """What runs is finished first."""
        self._say("STOPPING=1")

    def _say(self, words: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.setblocking(False)
            to.sendto(words.encode(), address)
