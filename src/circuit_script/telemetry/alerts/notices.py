"""Who is to be told what: pure, from the alerts as they are kept and the channels as circuit.toml says them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from shlex import quote

from circuit_script.telemetry.alerts.alert import SEVERITIES, Alert, Severity, Told
from circuit_script.telemetry.alerts.words import span

MUCH_MORE = 10  # times the size that was told
SHOWN = 15  # alerts in one message
HITS = 6  # tenants of each


class Step(StrEnum):
    """Why somebody is told."""

    new = "new"
    worse = "worse"
    more = "more"
    again = "still"
    eased = "eased"  # it goes on, and is less severe than what is told there
    over = "over"

    @property
    def ends(self) -> bool:
        """Whether nothing more is told of it there."""
        return self in (Step.eased, Step.over)


@dataclass(frozen=True, slots=True)
class Channel:
    """Where alerts go. ``fault`` says why it cannot be told anything, if so; ``delay`` in seconds."""

    name: str
    url: str
    at_least: Severity = "warning"
    delay: float = 0.0
    tenants: frozenset[str] = frozenset()
    quiet: bool = True
    fault: str = ""

    def bears(self, alert: Alert) -> bool:
        """Whether it is severe enough."""
        return SEVERITIES.index(alert.severity) >= SEVERITIES.index(self.at_least)

    def concerns(self, alert: Alert) -> bool:
        """A tenant's channel has its tenant's alerts; the others have everything, but no part of what they have."""
        if not self.bears(alert):
            return False
        if alert.key == f"channel:{self.name}":
            return False  # that it cannot be told
        return alert.tenant in self.tenants if self.tenants else alert.part_of is None


@dataclass(frozen=True, slots=True)
class Item:
    """One alert that a channel is to be told of."""

    alert: Alert
    step: Step


@dataclass(frozen=True, slots=True)
class Plan:
    """What a channel is to be told now, and what it will be once the quiet hours end."""

    items: tuple[Item, ...] = ()
    held: tuple[Alert, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent. ``severity`` is that of the worst in it, None where all of it is over."""

    title: str
    body: str
    severity: Severity | None


@dataclass(frozen=True, slots=True)
class Wording:
    """How messages are written: the dashboard's address, and the zone of the times."""

    url: str
    zone: tzinfo


def plan(channel: Channel, alerts: Sequence[Alert], now: datetime, *, quiet: bool, repeat: float) -> Plan:
    """What is to be told to the channel. ``quiet``: these are quiet hours; ``repeat`` in seconds."""
    items: list[Item] = []
    held: list[Alert] = []
    for alert in alerts:
        step = _step(channel, alert, now, repeat)
        if step is None:
            continue
        if quiet and channel.quiet and alert.severity != "critical":
            held.append(alert)
        else:
            items.append(Item(alert, step))
    items.sort(key=lambda each: (each.step.ends, -SEVERITIES.index(each.alert.severity), each.alert.id))
    return Plan(tuple(items), tuple(held))


def told_of(item: Item, now: datetime) -> Told:
    """What a channel knows once it has been told."""
    if item.step.ends:
        return Told(at=now, severity=item.alert.severity, size=item.alert.size, over=now)
    return Told(at=now, severity=item.alert.severity, size=item.alert.size)


def hold(alert: Alert, channel: Channel, now: datetime) -> Told | None:
    """What is remembered of an alert that waits for the end of the quiet hours; None when it is known already."""
    before = alert.told.get(channel.name, Told())
    return None if before.held else replace(before, held=now)


def _step(channel: Channel, alert: Alert, now: datetime, repeat: float) -> Step | None:
    told = alert.told.get(channel.name)
    if alert.silenced_until is not None and alert.silenced_until > now:
        return None
    if alert.resolved is not None:
        known = told is not None and told.over is None and (told.at or told.held)
        return Step.over if known else None
    if told is not None and told.at and not told.over and not channel.bears(alert):
        return Step.eased
    if alert.acknowledged_at is not None or not channel.concerns(alert):
        return None
    if told is None or told.at is None or told.over:
        return Step.new if max(0.0, (now - alert.since).total_seconds()) >= channel.delay else None
    if SEVERITIES.index(alert.severity) > SEVERITIES.index(told.severity):
        return Step.worse
    if told.size and alert.size >= MUCH_MORE * told.size:
        return Step.more
    return Step.again if now - told.at >= timedelta(seconds=repeat) else None


def compose(items: Sequence[Item], now: datetime, wording: Wording) -> Message:
    """One message of all of them."""
    on = [each for each in items if not each.step.ends]
    worst = max((each.alert.severity for each in on), key=SEVERITIES.index, default=None)
    shown = items[:SHOWN]
    body = "\n\n".join(_paragraph(each, now, wording) for each in shown)
    if len(items) > SHOWN:
        body += f"\n\nand {len(items) - SHOWN:,} more: circuit-script alerts"
    return Message(title=_title(items, on, worst), body=body, severity=worst)


def _title(items: Sequence[Item], on: Sequence[Item], worst: Severity | None) -> str:
    if len(items) == 1:
        (item,) = items
        return f"{_label(item)}: {item.alert.what}"
    over = len(items) - len(on)
    parts = [f"{len(on)} alerts" if len(on) != 1 else "1 alert"] if on else []
    parts += [f"{over} over"] if over else []
    lead = items[0].alert.what
    return f"{(worst or 'over').upper()}: {', '.join(parts)}: {lead}"


def _label(item: Item) -> str:
    match item.step:
        case Step.over:
            return "OVER"
        case Step.eased:
            return f"EASED TO {item.alert.severity.upper()}"
        case Step.new:
            return item.alert.severity.upper()
        case step:
            return f"{step.upper()} {item.alert.severity.upper()}"


def _paragraph(item: Item, now: datetime, wording: Wording) -> str:
    alert = item.alert
    ended = alert.resolved or now
    since = alert.since.astimezone(wording.zone)
    lasted = span(max(0.0, (ended - alert.since).total_seconds()))
    lines = [f"{_label(item)}  {alert.what}"]
    if item.step is Step.over:
        until = ended.astimezone(wording.zone)
        day = "" if until.date() == since.date() else f"{until:%Y-%m-%d} "
        lines.append(f"from {since:%Y-%m-%d %H:%M} to {day}{until:%H:%M %Z} ({lasted})")
    else:
        lines.append(f"since {since:%Y-%m-%d %H:%M %Z} ({lasted})")
    lines += [f"hits {_whom(alert)}"] if alert.hits or alert.tenant else []
    if item.step is not Step.over:
        lines += [f"next: {alert.next}"] if alert.next else []
        lines.append(f"acknowledge: circuit-script alerts ack {quote(alert.key)}")
    lines += [f"{wording.url.rstrip('/')}{alert.link}"] if wording.url and alert.link else []
    return "\n".join(lines)


def _whom(alert: Alert) -> str:
    said = [f"{hit.tenant} ({hit.said})" for hit in alert.hits[:HITS]] or [str(alert.tenant)]
    return ", ".join(said) + (f" and {len(alert.hits) - HITS} more" if len(alert.hits) > HITS else "")
