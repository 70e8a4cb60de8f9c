"""What the guardian looks after: what was seen on one side, what is wrong and what to do on the other.

Everything here is pure: who looks stands in the wiring, and gives what it saw and the present moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from circuit_script.db.health import Health
from circuit_script.settings_see import Severity
from circuit_script.supervised import Heart

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
SOON = timedelta(days=3)  # before the end of a credential, when a warning is not enough any more
CLOCK_SLACK, CLOCK_LIMIT = 1.0, 60.0  # seconds
LONG_TRANSACTION, ENDLESS_TRANSACTION = 900.0, 4 * 3600.0  # seconds
MANY_CONNECTIONS, ALL_CONNECTIONS = 0.8, 0.95  # shares of max_connections
OLD_IDS, SPENT_IDS = 1_000_000_000, 1_600_000_000  # transactions; at 2,147,483,648 a server takes no more writes
KEPT_LOG, MUCH_KEPT_LOG = 2 * 1024**3, 20 * 1024**3  # bytes of write-ahead log that a slot holds back
BEHIND = 120.0  # seconds that a standby may be behind
SLOW_DATABASE = 1.0  # seconds for the smallest of questions
LITTLE_SPACE = 256 * 1024**2  # bytes free, however large the disk is
LONG_WAIT = 900.0  # seconds that effects may wait
LOST = {"logs": "log lines"}
OFTEN = 3  # restarts of a role within an hour


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: ``what``, ``since`` when, and what to do ``next``. ``name`` stays the same as long as it
    is the same trouble."""

    name: str
    severity: Severity
    what: str
    since: datetime
    next: str

    def as_row(self) -> dict[str, str]:
        """As JSON has it."""
        return {
            "name": self.name,
            "severity": self.severity,
            "what": self.what,
            "since": self.since.isoformat(),
            "next": self.next,
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Finding:
        """From what `as_row` gave. Raises KeyError or ValueError for anything else."""
        severity = row["severity"]
        if severity not in SEVERITIES:
            raise ValueError(f"{severity!r} is no severity")
        since = datetime.fromisoformat(row["since"])
        return cls(str(row["name"]), severity, str(row["what"]), since, str(row["next"]))


def carried(found: Iterable[Finding], before: Iterable[Finding]) -> list[Finding]:
    """``found``, the worst first, each since it was first found."""
    since = {each.name: each.since for each in before}
    kept = [replace(each, since=min(each.since, since.get(each.name, each.since))) for each in found]
    return sorted(kept, key=lambda each: (-SEVERITIES.index(each.severity), each.name))


@dataclass(frozen=True, slots=True)
class ApiSeen:
    """A vendor's address: the ``status`` that it answered, or the ``fault`` for which it did not. ``asked`` says that a
    request was made: else a connection is all that was wanted."""

    name: str
    host: str
    status: int | None = None
    fault: str = ""
    certificate_ends: datetime | None = None
    asked: bool = True


def api_findings(seen: Iterable[ApiSeen], at: datetime, early: timedelta) -> list[Finding]:
    """Who cannot be reached, and whose certificate ends within ``early``."""
    found = []
    for each in seen:
        name, who = f"api:{each.name}", f"{each.name} ({each.host})"
        if each.fault:
            what = f"{who} cannot be reached: {each.fault}."
            found.append(Finding(name, "warning", what, at, "Look at the vendor's status page, and at the network."))
        elif each.status is not None and each.status >= 500:
            what = f"{who} answers {each.status}."
            found.append(Finding(name, "warning", what, at, "Look at the vendor's status page."))
        if each.certificate_ends is not None:
            what = f"The certificate of {who}"
            cure = "Renew it; where it is the vendor's, tell them."
            found += _ending(f"certificate:{each.name}", what, each.certificate_ends, at, early, cure)
    return found


def expiry_findings(expiries: Mapping[str, str], at: datetime, early: timedelta) -> list[Finding]:
    """Which of the credentials whose end is known have ended, or do so within ``early``."""
    found = []
    for name, said in expiries.items():
        try:
            ends = datetime.fromisoformat(said)
        except ValueError:
            what = f"The end of {name} cannot be read: {said!r}."
            cure = f'Write a date like "2027-01-31" for {name} in [guardian.expiries].'
            found.append(Finding(f"credential:{name}", "warning", what, at, cure))
            continue
        ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
        cure = f"Make a new one, and write its end into [guardian.expiries] {name}."
        found += _ending(f"credential:{name}", f"The credential {name}", ends, at, early, cure)
    return found


def _ending(name: str, what: str, ends: datetime, at: datetime, early: timedelta, cure: str) -> list[Finding]:
    left = ends - at
    if left > early:
        return []
    if left <= timedelta(0):
        return [Finding(name, "critical", f"{what} has ended on {ends:%Y-%m-%d %H:%M} UTC.", at, cure)]
    when = f"ends on {ends:%Y-%m-%d}, in {_days(left)}"
    return [Finding(name, "critical" if left <= SOON else "warning", f"{what} {when}.", at, cure)]


def _days(left: timedelta) -> str:
    days, hours = left.days, max(1, left.seconds // 3600)
    return f"{days} day{'' if days == 1 else 's'}" if days else f"{hours} hour{'' if hours == 1 else 's'}"


def _span(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} minutes"


def database_findings(seen: Health, at: datetime) -> list[Finding]:
    """What will stop the database, or already slows it."""
    found = []

    def add(name: str, severity: Severity, what: str, cure: str) -> None:
        found.append(Finding(f"database:{name}", severity, what, at, cure))

    if seen.answered_in > SLOW_DATABASE:
        add("slow", "warning", f"The smallest question takes {seen.answered_in:.1f} s.", "Look at the server's load.")
    used = seen.connections / max(1, seen.max_connections)
    if used > MANY_CONNECTIONS:
        what = f"{seen.connections:,} of {seen.max_connections:,} connections are used."
        cure = "Raise max_connections, end what does not need its own, or put PgBouncer in front (pooler = true)."
        add("connections", "critical" if used > ALL_CONNECTIONS else "warning", what, cure)
    if seen.oldest_transaction > LONG_TRANSACTION:
        who = f" (process {seen.oldest_pid}{f' of {seen.oldest_name}' if seen.oldest_name else ''})"
        what = f"A transaction is open for {_span(seen.oldest_transaction)}{who}: nothing is tidied up behind it."
        cure = f"End it if nobody needs it: SELECT pg_terminate_backend({seen.oldest_pid})."
        add("transaction", "critical" if seen.oldest_transaction > ENDLESS_TRANSACTION else "warning", what, cure)
    if seen.ids_used > OLD_IDS:
        what = f"{seen.ids_used:,} transactions since the oldest row was frozen; at 2,147,483,648 writing stops."
        cure = "Run VACUUM (FREEZE) as the server's owner, and look at what keeps autovacuum from it."
        add("wraparound", "critical" if seen.ids_used > SPENT_IDS else "warning", what, cure)
    if not seen.autovacuum:
        add("autovacuum", "warning", "Autovacuum is off: tables grow for ever.", "Set autovacuum = on.")
    if seen.untidy:
        what = f"Autovacuum is behind: {', '.join(seen.untidy)} hold more dead rows than living ones."
        add("dead-rows", "warning", what, "Look for long transactions, and give autovacuum more workers.")
    if seen.kept_log > KEPT_LOG:
        what = f"Replication slot {seen.slot} holds back {seen.kept_log / 1024**3:,.1f} GB of log: the disk fills."
        cure = "Bring its standby back, or drop the slot: SELECT pg_drop_replication_slot(…)."
        add("slot", "critical" if seen.kept_log > MUCH_KEPT_LOG else "warning", what, cure)
    if seen.standby_behind > BEHIND:
        what = f"A standby is {seen.standby_behind:,.0f} s behind."
        add("replication", "warning", what, "Look at the standby's log and at the network between them.")
    return found


@dataclass(frozen=True, slots=True)
class DiskSeen:
    """One disk, in bytes and in inodes (none: it does not count them)."""

    path: str
    total: int
    free: int
    inodes: int = 0
    inodes_free: int = 0


def disk_findings(seen: Iterable[DiskSeen], at: datetime, least: float) -> list[Finding]:
    """Where less than the share ``least`` is free."""
    found = []
    for each in seen:
        share = each.free / max(1, each.total)
        cure = f"Free some space on the disk that holds {each.path}, or make it larger."
        if share < least or each.free < LITTLE_SPACE:
            what = f"{each.free / 1024**3:,.1f} GB ({share:.0%}) are free on the disk of {each.path}."
            severity: Severity = "critical" if share < least / 3 or each.free < LITTLE_SPACE else "warning"
            found.append(Finding(f"disk:{each.path}", severity, what, at, cure))
        if each.inodes and each.inodes_free / each.inodes < least / 3:
            what = f"The disk of {each.path} has room for {each.inodes_free:,} more files only."
            found.append(Finding(f"files:{each.path}", "critical", what, at, cure))
    return found


def clock_findings(apart: float, at: datetime) -> list[Finding]:
    """``apart`` is what is sure: seconds by which this host's clock is away from the database's."""
    if abs(apart) <= CLOCK_SLACK:
        return []
    what = f"This host's clock is {abs(apart):,.1f} s {'ahead of' if apart > 0 else 'behind'} the database's."
    severity: Severity = "critical" if abs(apart) > CLOCK_LIMIT else "warning"
    return [Finding("clock", severity, what, at, "Let both machines follow a time server (NTP).")]


def worker_findings(hearts: Sequence[Heart], at: datetime) -> list[Finding]:
    """Hosts whose workers have all fallen silent."""
    hosts: dict[str, list[Heart]] = {}
    for each in hearts:  # a host's name stands before what tells its boots apart
        hosts.setdefault(each.host.partition(" ")[0], []).append(each)
    found = []
    for host, its in sorted(hosts.items()):
        last = min(its, key=lambda each: each.silent)
        if last.silent <= 0:
            continue
        what = f"The worker on {host} (process {last.pid}) is silent for {_span(last.silent)}."
        cure = f"Look whether {host} is up and serve runs there; others have taken over its work."
        found.append(Finding(f"worker:{host}", "critical", what, at - timedelta(seconds=last.silent), cure))
    return found


@dataclass(frozen=True, slots=True)
class RoleSeen:
    """A role of this host, as its supervisor or a look at it tells. ``down`` is the reason for which it does nothing;
    ``restarts`` are those of the last hour."""

    name: str
    down: str = ""
    restarts: int = 0


def role_findings(seen: Iterable[RoleSeen], at: datetime) -> list[Finding]:
    """Roles that are down, or that end again and again."""
    found = []
    for each in seen:
        logged = "Look at what serve prints: journalctl -u circuit-script, or its terminal."
        if each.down:
            severity: Severity = "warning" if each.name == "dashboard" else "critical"
            found.append(Finding(f"role:{each.name}", severity, f"The {each.name} is down: {each.down}.", at, logged))
        elif each.restarts >= OFTEN:
            what = f"The {each.name} was started again {each.restarts} times within an hour."
            found.append(Finding(f"role:{each.name}", "warning", what, at, logged))
    return found


@dataclass(frozen=True, slots=True)
class WaitSeen:
    """``n`` effects to one vendor wait, the oldest for ``seconds``."""

    connector: str
    target: str
    n: int
    seconds: float


def wait_findings(seen: Iterable[WaitSeen], at: datetime) -> list[Finding]:
    """Vendors that get what is meant for them late."""
    found = []
    for each in seen:
        if each.seconds > LONG_WAIT:
            to = f"{each.connector} {each.target}".strip()
            what = f"{each.n:,} effects to {to} wait, the oldest for {_span(each.seconds)}."
            cure = "circuit-script status says why they wait."
            since = at - timedelta(seconds=each.seconds)
            found.append(Finding(f"effects:{to}", "warning", what, since, cure))
    return found


def dropped_findings(dropped: Mapping[str, int], at: datetime) -> list[Finding]:
    """What of log and traces was not kept since the last look."""
    return [
        Finding(
            f"dropped:{kind}",
            "warning",
            f"{count:,} {LOST.get(kind, kind)} were not kept: the database did not take them in time.",
            at,
            "Log less, or give the database more room; what was dropped stands in the log as a count.",
        )
        for kind, count in dropped.items()
        if count > 0
    ]
