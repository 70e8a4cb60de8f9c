"""Every error that Circuit Script raises, in one tree.

    CircuitError
    ├── ConfigError             circuit.toml, the environment or an argument is wrong
    ├── StartError              the platform cannot start here
    │   ├── DatabaseUnavailable
    │   └── AppError            the author's app does not import, or declares something wrong
    ├── IntakeRefused           a delivery that is not accepted (has an HTTP status)
    ├── RequestRefused          a governed child asked the broker for something it may not have
    └── Fenced                  another worker owns the lane now

The docstring of a class is its message; what is known of the case is appended.
"""

from __future__ import annotations


class CircuitError(Exception):
    """Circuit Script could not go on."""

    def __init__(self, detail: str = "", *, cure: str = "") -> None:
        summary = (type(self).__doc__ or "").strip().split("\n", 1)[0]
        self.detail = detail
        self.cure = cure
        super().__init__(" ".join(part for part in (summary, detail, cure) if part))


class ConfigError(CircuitError):
    """The configuration is not valid."""


class StartError(CircuitError):
    """Circuit Script cannot start."""


class DatabaseUnavailable(StartError):
    """The database cannot be used."""


class AppError(StartError):
    """The app cannot be loaded."""


class IntakeRefused(CircuitError):
    """The delivery was refused."""

    def __init__(self, status: int, reason: str, detail: str = "") -> None:
        self.status = status
        self.reason = reason
        super().__init__(detail or reason)


class RequestRefused(CircuitError):
    """The request of the handler was refused."""


class Fenced(CircuitError):
    """Another worker owns this lane now, so this result does not count."""
