"""Every error that Circuit Script raises, in one tree.

    CircuitError
    ├── ConfigError             circuit.toml, the environment or an argument is wrong
    ├── NoApp                   the folder holds no app
    ├── KeyRefused              an API key that cannot be made, or is not there
    ├── PeopleRefused           an account that cannot be made or changed like this
    ├── SettleRefused           a model call that nobody has to settle
    ├── LetterRefused           a dead letter, or an effect in doubt, that cannot be settled like this
    ├── AlertRefused            an alert, or a channel of alerts, that is not there
    ├── BackupRefused           a backup that cannot be made or restored
    ├── ForgetRefused           nobody, or too many, would be forgotten
    ├── TestsRefused            the app's tests cannot be run
    ├── DeployRefused           the app does not go live as it is
    ├── ElsewhereRefused        the platform at another address cannot be asked, or does not do it
    │   └── ElsewhereAway       it does not answer now: nobody knows whether it has done it
    ├── StartError              the platform cannot start here
    │   ├── DatabaseUnavailable
    │   ├── NotRunning          a verb that only looks finds nothing to look at
    │   └── AppError            the author's app does not import, or declares something wrong
    │       └── IsolationUnavailable   it cannot be fenced in as is wanted
    ├── ScaffoldRefused         `init` would touch what is there
    ├── IntakeRefused           a delivery that is not accepted (has an HTTP status)
    ├── TrialRefused            a handler cannot be run by hand like this
    ├── ControlRefused          there is nothing of that name to pause or to cancel
    ├── ActRefused              a person may not do this, or is not signed in any more
    ├── ReplayRefused           past events cannot be run again like this
    ├── ReleaseRefused          a release that cannot be kept, prepared or made live like this
    │   └── ReleaseUnknown      there is no release of that name
    ├── MirrorRefused           who acts on a source's deliveries cannot be asked or changed like this
    ├── RecordingUnreadable     what was recorded of a live execution is broken, or of another version
    ├── ObjectsRefused          schemas cannot be written from a CRM's fields like this
    ├── LogQueryRefused         a question to the log that nobody can understand
    ├── FeedbackRefused         a verdict that was wrong cannot be kept like this
    ├── RequestRefused          a governed child asked the broker for something it may not have
    │   ├── SchemaRefused       a record that a handler writes does not fit the schema of its object
    │   ├── CalloutRefused      it may not call there, or not now
    │   │   └── QuotaExceeded   its tenant has used up what its tier allows
    │   ├── IrreversibleRefused a model chose what cannot be taken back, after it may have read untrusted text
    │   ├── BudgetExceeded      a model call does not fit into a budget
    │   └── VendorUnavailable   a CRM outside could not be asked
    │       └── NotConnected    the tenant has no account there
    ├── VersionConflict         a record was changed that an outcome was to find as it was read
    ├── SecretMissing           nobody has put in a secret of that name
    ├── SecretsUnavailable      the place where secrets lie, or the key that opens them, is not there
    ├── WorkerUnavailable       no worker of the app answers on this host
    └── Fenced                  another worker owns the lane now

The docstring of a class is its message; what is known of the case is appended. ``page`` names the page that says more
(`circuit_script.pages`): the class's, unless the case has its own.
"""

from __future__ import annotations

from collections.abc import Sequence


class CircuitError(Exception):
    """Circuit Script could not go on."""

    page = "error"

    def __init__(self, detail: str = "", *, cure: str = "", page: str | None = None) -> None:
        if page is not None:
            self.page = page
        summary = (type(self).__doc__ or "").strip().split("\n", 1)[0]
        self.detail = detail
        self.cure = cure
        super().__init__(" ".join(part for part in (summary, detail, cure) if part))


class ConfigError(CircuitError):
    """The configuration is not valid."""

    page = "config"


class NoApp(CircuitError):
    """This is no app folder."""

    page = "no-app"


class KeyRefused(CircuitError):
    """This cannot be done with API keys."""

    page = "api-key"


class PeopleRefused(CircuitError):
    """This cannot be done with accounts."""

    page = "people"


class SettleRefused(CircuitError):
    """This call cannot be settled by hand."""

    page = "unsettled-calls"


class LetterRefused(CircuitError):
    """This cannot be done with the letter."""

    page = "dead-letter"


class AlertRefused(CircuitError):
    """This cannot be done with alerts."""

    page = "alerts"


class BackupRefused(CircuitError):
    """The backup was refused."""

    page = "backup"


class ForgetRefused(CircuitError):
    """Nobody was forgotten."""

    page = "forget"


class TestsRefused(CircuitError):
    """The tests were not run."""

    __test__ = False  # not a class of tests
    page = "testing"


class DeployRefused(CircuitError):
    """The release was not deployed."""

    page = "deploy"


class ElsewhereRefused(CircuitError):
    """The platform there did not do it."""

    page = "elsewhere"


class ElsewhereAway(ElsewhereRefused):
    """The platform there does not answer."""


class StartError(CircuitError):
    """Circuit Script cannot start."""

    page = "start"


class DatabaseUnavailable(StartError):
    """The database cannot be used."""

    page = "database-unavailable"


class NotRunning(StartError):
    """Nothing runs here."""

    page = "not-running"


class AppError(StartError):
    """The app cannot be loaded."""

    page = "app-error"


class IsolationUnavailable(AppError):
    """Strict isolation is not possible here."""

    page = "isolation"


_PAGES_OF_STATUS = {401: "signature-refused", 404: "unknown-source", 429: "overloaded", 503: "overloaded"}


class ScaffoldRefused(CircuitError):
    """The new app cannot be made."""

    page = "folder-taken"


class IntakeRefused(CircuitError):
    """The delivery was refused."""

    page = "delivery-refused"

    def __init__(self, status: int, reason: str, detail: str = "") -> None:
        self.status = status
        self.reason = reason
        super().__init__(detail or reason, page=_PAGES_OF_STATUS.get(status))


class TrialRefused(CircuitError):
    """This cannot be tried."""

    page = "trial"


class ControlRefused(CircuitError):
    """This cannot be paused, resumed or cancelled."""

    page = "paused"


class ActRefused(CircuitError):
    """This is not done."""

    page = "dashboard"


class ReplayRefused(CircuitError):
    """This cannot be replayed."""

    page = "replay"


class ReleaseRefused(CircuitError):
    """This cannot be done with releases."""

    page = "release"


class ReleaseUnknown(ReleaseRefused):
    """There is no such release."""


class MirrorRefused(CircuitError):
    """Who acts on a source's deliveries cannot be asked or changed like this."""

    page = "mirror"


class RecordingUnreadable(CircuitError):
    """What was recorded of a live execution cannot be read again."""

    page = "recordings"


class ObjectsRefused(CircuitError):
    """Schemas cannot be pulled like this."""

    page = "schemas"


class FeedbackRefused(CircuitError):
    """This is not kept as feedback."""

    page = "judgment"


class RequestRefused(CircuitError):
    """The request of the handler was refused."""

    page = "request-refused"


class SchemaRefused(RequestRefused):
    """The record does not fit its schema."""

    page = "schemas"


class CalloutRefused(RequestRefused):
    """The callout was refused."""

    page = "callout-refused"

    def __init__(
        self, detail: str = "", *, cure: str = "", page: str | None = None, retry_after: float | None = None
    ) -> None:
        self.retry_after = retry_after  # seconds until it may be allowed; None when time changes nothing
        super().__init__(detail, cure=cure, page=page)


class IrreversibleRefused(RequestRefused):
    """A model chose what cannot be taken back, and untrusted text was read before."""

    page = "irreversible"


class QueryRefused(RequestRefused):
    """The query was refused.

    ``position`` is the place in its text, from 0; -1 where it is about no place in one.
    """

    page = "query-refused"

    def __init__(self, detail: str = "", *, cure: str = "", page: str | None = None, position: int = -1) -> None:
        self.position = position
        super().__init__(detail, cure=cure, page=page)


class BudgetExceeded(RequestRefused):
    """The money for model calls is used up.

    ``scope`` is the budget that is full: "trigger", "tenant day", "tenant month" or "day". ``ceiling``, ``spent`` and
    ``reserved`` are in US dollars; ``resets_at`` is in seconds since the epoch, and a midnight of UTC.
    """

    page = "budget-exceeded"

    def __init__(
        self, detail: str = "", *, scope: str, ceiling: float, spent: float, reserved: float, resets_at: float
    ) -> None:
        self.scope = scope
        self.ceiling = ceiling
        self.spent = spent
        self.reserved = reserved
        self.resets_at = resets_at
        super().__init__(detail)


class QuotaExceeded(CalloutRefused):
    """The tenant's quota is used up."""

    page = "quota-exceeded"
    defer = False  # whether the tenant's tier puts off what fails by it


class LogQueryRefused(CircuitError):
    """This cannot be searched for.

    ``position`` is the place in what was typed, from 0.
    """

    page = "log-query"

    def __init__(self, detail: str = "", *, position: int, cure: str = "") -> None:
        self.position = position
        super().__init__(f"{detail} (at character {position + 1})" if position >= 0 else detail, cure=cure)


class VendorUnavailable(RequestRefused):
    """The CRM could not be asked."""

    page = "vendor-unavailable"


class NotConnected(VendorUnavailable):
    """There is no account of this tenant."""

    page = "not-connected"

    def __init__(self, tenant: str, connector: str) -> None:
        self.tenant = tenant
        self.connector = connector
        super().__init__(
            f"tenant {tenant} is not connected to {connector}.",
            cure=f"circuit-script connect {connector} --tenant {tenant}",
        )


class VersionConflict(CircuitError):
    """A record was changed since it was read.

    ``records`` are the objects and ids of those that were.
    """

    page = "version-conflict"

    def __init__(self, records: Sequence[tuple[str, str]]) -> None:
        self.records = records
        names = ", ".join(f"{object_} {identifier}" for object_, identifier in records[:5])
        super().__init__(f"It is {names}{' and others' if len(records) > 5 else ''}.")

    @property
    def reason(self) -> str:
        """What the outcome of a record says that failed by it."""
        return f"{type(self).__name__}: {self}"


class SecretMissing(CircuitError):
    """A secret is missing."""

    page = "secrets"


class SecretsUnavailable(CircuitError):
    """Secrets cannot be read."""

    page = "secrets"


class WorkerUnavailable(CircuitError):
    """No worker of the app answers on this host."""

    page = "no-worker"


class Fenced(CircuitError):
    """Another worker owns this lane now, so this result does not count."""

    page = "fenced"
