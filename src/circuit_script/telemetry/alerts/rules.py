"""The rules: what of a look is worth an alert. Pure, so that each can be read and tested for itself.

What is counted by tenant gives one signal of the whole, which says whom it hits, and one of each tenant's own part, for
those who are told of that tenant only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from shlex import quote
from typing import TypeVar

import structlog

from circuit_script.settings_see import AlertSettings
from circuit_script.telemetry.alerts.alert import Hit, Severity
from circuit_script.telemetry.alerts.look import (
    Aged,
    BudgetUse,
    Counted,
    Doubts,
    Down,
    Finding,
    HotLead,
    Letters,
    Look,
    Mute,
    Rate,
    Unread,
)
from circuit_script.telemetry.alerts.slo import HOUR, SLOW_SHARE, Objective, burning, objectives
from circuit_script.telemetry.alerts.words import (
    counted,
    harmless,
    key_as_named,
    key_of,
    part_of_path,
    path,
    printable,
    search,
    span,
    with_options,
)

log = structlog.get_logger()

FEW = 3  # executions that must have failed, or been slow, before their share says anything
HALF = 0.5
MANY_FAILED = 10
AGED_BADLY = 10  # times the bound
MOST_LEADS = 100
ALL_OF_A_RULE = 400  # signals; wholes come first, and say how many more they hit
HITS = 20  # tenants that a signal names
MUTE_AFTER = 3  # tries
SPENT_UP = 0.995  # of a budget: less is left than a call may cost
LATE = "circuit-script limits"  # shows what executions use of their time
TROUBLE = "trouble"  # whatever a person should look at, as the page of executions calls it

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Signal:
    """Something that is wrong now. The fields are those of `Alert`."""

    key: str
    rule: str
    severity: Severity
    what: str
    tenant: str | None = None
    part_of: str | None = None
    hits: tuple[Hit, ...] = ()
    handlers: tuple[str, ...] = ()
    next: str = ""
    link: str = ""
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """What is wrong, and which rules could not be judged: nothing of theirs is over."""

    signals: tuple[Signal, ...]
    unknown: frozenset[str]


def judge(look: Look, settings: AlertSettings) -> Judged:
    """Everything that is wrong by the rules."""
    promises = {each.name: each for each in objectives(settings.slos)}
    rules: dict[str, tuple[Sequence[object] | None, Callable[[], Iterable[Signal]]]] = {
        "errors": (look.rates, lambda: _errors(look.rates or (), settings)),
        "latency": (look.rates, lambda: _latency(look.rates or (), settings)),
        "slo": (look.counted, lambda: _slos(look.counted or (), promises, look.rates or ())),
        "dead": (look.letters, lambda: _dead(look.letters or ())),
        "doubt": (look.doubts, lambda: _doubt(look.doubts or ())),
        "budget": (look.budgets, lambda: _budgets(look.budgets or (), settings)),
        "vendor": (look.down, lambda: _down(look.down or ())),
        "queue": (look.aged, lambda: _aged(look.aged or (), settings)),
        "lead": (look.leads, lambda: _leads(look.leads or (), settings)),
        "guardian": (look.findings, lambda: _findings(look.findings or ())),
        "channel": (look.mute, lambda: _mute(look.mute)),
        "monitor": (look.unread, lambda: _unread(look.unread)),
    }
    signals: dict[str, Signal] = {}
    unknown: set[str] = set()
    for name, (figures, found) in rules.items():
        try:
            several = [_clean(each) for each in islice(found(), ALL_OF_A_RULE + 1)]
        except Exception as error:  # a rule that fails must not blind the others
            log.exception("monitor.rule_failed", rule=name)
            several = list(_unread([Unread(f"rule {name}", f"{type(error).__name__}: {error}")]))
            figures = None
        if figures is None or len(several) > ALL_OF_A_RULE:  # what is cut off is not over
            unknown.add(name)
        signals |= {each.key: each for each in several[:ALL_OF_A_RULE]}
    return Judged(tuple(signals.values()), frozenset(unknown))


def _errors(rates: Sequence[Rate], settings: AlertSettings) -> Iterator[Signal]:
    def bad(each: Rate) -> bool:
        return each.failed >= FEW and each.failed / each.n > settings.error_rate

    def signal(key: str, each: Rate, hits: tuple[Hit, ...], part_of: str | None) -> Signal:
        share = each.failed / each.n
        return Signal(
            key=key,
            rule="errors",
            severity="critical" if share >= HALF and each.failed >= MANY_FAILED else "warning",
            what=f"{each.handler}: {each.failed:,} of {each.n:,} executions failed in the last 5 minutes ({share:.0%})",
            tenant=each.tenant,
            part_of=part_of,
            hits=hits,
            handlers=(each.handler,),
            next=search(each.handler, each.tenant),
            link=path("/executions", handler=each.handler, status=TROUBLE, tenant=each.tenant or _worst(hits)),
        )

    return _by_handler("errors", rates, bad, lambda each: f"{each.failed:,} of {each.n:,}", signal)


def _latency(rates: Sequence[Rate], settings: AlertSettings) -> Iterator[Signal]:
    def bad(each: Rate) -> bool:
        return each.slow >= FEW and each.slow / each.n > SLOW_SHARE

    def signal(key: str, each: Rate, hits: tuple[Hit, ...], part_of: str | None) -> Signal:
        return Signal(
            key=key,
            rule="latency",
            severity="warning",
            what=f"{each.handler}: {each.slow:,} of {each.n:,} executions took over {settings.latency:g} s in the last "
            f"5 minutes ({each.slow / each.n:.0%})",
            tenant=each.tenant,
            part_of=part_of,
            hits=hits,
            handlers=(each.handler,),
            next=LATE,
            link=path("/executions", handler=each.handler, tenant=each.tenant or _worst(hits)),
        )

    return _by_handler("latency", rates, bad, lambda each: f"{each.slow:,} of {each.n:,}", signal)


def _by_handler(
    rule: str,
    rates: Sequence[Rate],
    bad: Callable[[Rate], bool],
    said: Callable[[Rate], str],
    signal: Callable[[str, Rate, tuple[Hit, ...], str | None], Signal],
) -> Iterator[Signal]:
    wholes = {each.handler for each in rates if each.tenant is None and bad(each)}
    parts = sorted((each for each in rates if each.tenant is not None and bad(each)), key=lambda each: -each.n)
    for each in rates:
        if each.tenant is None and each.handler in wholes:
            own = [part for part in rates if part.tenant is not None and part.handler == each.handler]
            hit = [part for part in parts if part.handler == each.handler] or own
            yield signal(key_of(rule, each.handler), each, _hits((str(part.tenant), said(part)) for part in hit), None)
    for part in parts:
        whole = key_of(rule, part.handler) if part.handler in wholes else None
        yield signal(key_of(rule, part.handler, part.tenant), part, (Hit(str(part.tenant), said(part)),), whole)


def _slos(counted: Sequence[Counted], promises: Mapping[str, Objective], rates: Sequence[Rate]) -> Iterator[Signal]:
    for each in counted:
        promise = promises.get(each.slo)
        found = burning(promise.budget, each.windows) if promise else None
        if promise is None or found is None:
            continue
        subject = each.handler or "deliveries"
        late, seen = promise.p95 is not None, [rate for rate in rates if rate.tenant and rate.handler == each.handler]
        hits = _hits(
            (str(rate.tenant), f"{rate.failed:,} of {rate.n:,} failed") for rate in seen if rate.failed and not late
        )
        yield Signal(
            key=key_of("slo", each.slo, each.handler or None),
            rule="slo",
            severity=found.window.severity,
            what=f"{subject}: the error budget of {each.slo} ({promise.said}) burns {found.rate:.1f} times too fast: "
            f"{found.bad:,} of {found.total:,} in the last {found.window.long // HOUR} h",
            hits=hits,
            handlers=(each.handler,) if each.handler else (),
            next="circuit-script status" if not each.handler else LATE if late else search(each.handler, None),
            link=path("/executions", handler=each.handler, status="" if late else TROUBLE, tenant=_worst(hits))
            if each.handler
            else "/",
        )


def _dead(letters: Sequence[Letters]) -> Iterator[Signal]:
    def signal(key: str, handler: str, tenant: str | None, group: Sequence[Letters], part_of: str | None) -> Signal:
        of: Counter[str] = Counter()
        for each in group:  # of effects there is one for each cause
            of[each.tenant] += each.n
        n, effects = of.total(), group[0].effects
        return Signal(
            key=key,
            rule="dead",
            severity="warning",
            what=f"{handler}: {counted(n, 'dead letter')} {'waits' if n == 1 else 'wait'} for somebody"
            + (f"; {harmless(group[0].reason)}" if group[0].reason else ""),
            tenant=tenant,
            part_of=part_of,
            hits=_hits((name, f"{each:,}") for name, each in of.most_common()),
            handlers=(handler,),
            next="circuit-script dead list" + with_options(tenant=tenant, trigger="" if effects else handler),
            link=path(
                "/dead-letters",
                kind="effect" if effects else "",
                trigger="" if effects else handler,
                tenant=tenant or group[0].tenant,
            ),
            size=float(n),
        )

    return _by_tenant("dead", letters, lambda each: each.handler, signal)


def _doubt(doubts: Sequence[Doubts]) -> Iterator[Signal]:
    def signal(key: str, subject: str, tenant: str | None, group: Sequence[Doubts], part_of: str | None) -> Signal:
        n = sum(each.n for each in group)
        return Signal(
            key=key,
            rule="doubt",
            severity="warning",
            what=f"{subject}: nobody knows whether the vendor did {counted(n, 'effect')}",
            tenant=tenant,
            part_of=part_of,
            hits=_hits((each.tenant, f"{each.n:,}") for each in group),
            next="circuit-script doubt list" + with_options(connector=group[0].connector, tenant=tenant),
            link=path("/in-doubt", connector=group[0].connector, tenant=tenant or group[0].tenant),
            size=float(n),
        )

    return _by_tenant("doubt", doubts, lambda each: f"{each.connector}/{each.operation}", signal)


def _down(down: Sequence[Down]) -> Iterator[Signal]:
    def signal(key: str, subject: str, tenant: str | None, group: Sequence[Down], part_of: str | None) -> Signal:
        waiting = sum(each.waiting for each in group)
        return Signal(
            key=key,
            rule="vendor",
            severity="warning",
            what=f"{subject} is down: {harmless(group[0].reason)}; {counted(waiting, 'effect')} "
            f"{'waits' if waiting == 1 else 'wait'}",
            tenant=tenant,
            part_of=part_of,
            hits=_hits((each.tenant, f"{counted(each.waiting, 'effect')}") for each in group),
            next="circuit-script status",
            link=path("/vendors", tenant=tenant or group[0].tenant),
            size=float(waiting),
        )

    return _by_tenant("vendor", down, lambda each: f"{each.connector}/{each.target}".rstrip("/"), signal)


def _aged(aged: Sequence[Aged], settings: AlertSettings) -> Iterator[Signal]:
    def signal(key: str, handler: str, tenant: str | None, group: Sequence[Aged], part_of: str | None) -> Signal:
        n, age = sum(each.n for each in group), max(each.age for each in group)
        return Signal(
            key=key,
            rule="queue",
            severity="critical" if age > AGED_BADLY * settings.queue_age else "warning",
            what=f"{handler}: the oldest of {counted(n, 'event')} that could run has waited for {span(age)}",
            tenant=tenant,
            part_of=part_of,
            hits=_hits((each.tenant, f"{each.n:,}, {span(each.age)}") for each in group),
            handlers=(handler,),
            next="circuit-script status",
            link=path("/", tenant=tenant or group[0].tenant),
        )

    late = sorted((each for each in aged if each.age > settings.queue_age), key=lambda each: -each.age)
    return _by_tenant("queue", late, lambda each: each.handler, signal)


def _by_tenant(
    rule: str,
    figures: Sequence[T],
    subject_of: Callable[[T], str],
    signal: Callable[[str, str, str | None, Sequence[T], str | None], Signal],
) -> Iterator[Signal]:
    """Of each subject one signal; where it hits several tenants, one of each of them beside it."""
    groups: dict[str, list[T]] = {}
    for each in figures:
        groups.setdefault(subject_of(each), []).append(each)
    for subject, group in groups.items():
        yield signal(key_of(rule, subject), subject, None, group, None)
    for subject, group in groups.items():
        of_tenants: dict[str, list[T]] = {}
        for each in group:
            of_tenants.setdefault(str(getattr(each, "tenant", "")), []).append(each)
        for tenant, own in of_tenants.items():
            yield signal(key_of(rule, subject, tenant), subject, tenant, own, key_of(rule, subject))


def _budgets(budgets: Sequence[BudgetUse], settings: AlertSettings) -> Iterator[Signal]:
    for each in budgets:
        share = each.used / each.ceiling if each.ceiling else 0.0
        reached = max((step for step in settings.budget if share >= min(step, SPENT_UP)), default=None)
        if reached is None:
            continue
        whose = each.tenant or each.handler or "all tenants"
        period = "month" if "month" in each.scope else "day"
        yield Signal(
            key=key_of("budget", f"{each.scope.replace(' ', '-')}/{each.handler}".rstrip("/"), each.tenant or None),
            rule="budget",
            severity="critical" if reached >= 1 else "warning",
            what=f"{whose}: {share:.0%} of the {period}'s budget for model calls is used"
            + ("; further calls are refused" if reached >= 1 else ""),
            tenant=each.tenant or None,
            hits=(Hit(each.tenant, f"{share:.0%}"),) if each.tenant else (),
            handlers=(each.handler,) if each.handler else (),
            next="circuit-script spend",
            link=path("/tenants/usage", tenant=each.tenant) if each.tenant else "/tenants",
        )


def _leads(leads: Sequence[HotLead], settings: AlertSettings) -> Iterator[Signal]:
    for each in leads[:MOST_LEADS]:
        yield Signal(
            key=key_of("lead", each.lead, each.tenant),
            rule="lead",
            severity="warning",
            what=f"lead {harmless(each.lead)} has grade {each.grade}, and nobody has taken it for {settings.hot_lead}",
            tenant=each.tenant,
            hits=(Hit(each.tenant, f"lead {harmless(each.lead)}"),),
            next="Call them; what happened to them: circuit-script logs"
            + with_options(record=each.lead, tenant=each.tenant),
            link=path(f"/leads/{part_of_path(each.lead)}", tenant=each.tenant),
        )


def _findings(findings: Sequence[Finding]) -> Iterator[Signal]:
    for each in findings:
        yield Signal(
            key=key_as_named("guardian", each.name),
            rule="guardian",
            severity=each.severity,
            what=harmless(each.what),
            next=each.next or "circuit-script doctor",
            link="/vendors",
        )


def _mute(mute: Sequence[Mute]) -> Iterator[Signal]:
    for each in mute:
        if each.failures >= MUTE_AFTER:
            yield Signal(
                key=key_as_named("channel", each.channel),
                rule="channel",
                severity="warning",
                what=f"the alerts' channel {each.channel} cannot be told: {harmless(each.failure)}",
                next=f"circuit-script alerts test {quote(each.channel)}",
                link="/alerts",
            )


def _unread(unread: Sequence[Unread]) -> Iterator[Signal]:
    for each in unread:
        yield Signal(
            key=key_as_named("monitor", each.what),
            rule="monitor",
            severity="warning",
            what=f"alerts are blind in part: {each.what} cannot be read: {harmless(each.failure)}",
            next="circuit-script doctor",
            link="/alerts",
        )


def _worst(hits: Sequence[Hit]) -> str:
    """The tenant with which to begin where several are hit: a page shows one."""
    return hits[0].tenant if hits else ""


def _hits(found: Iterable[tuple[str, str]]) -> tuple[Hit, ...]:
    said = [Hit(tenant, figures) for tenant, figures in found]
    return tuple(said[:HITS]) + ((Hit("…", f"and {len(said) - HITS:,} more tenants"),) if len(said) > HITS else ())


def _clean(signal: Signal) -> Signal:
    """Without what a terminal obeys and a database refuses, wherever it came from."""
    return replace(
        signal,
        what=printable(signal.what),
        next=printable(signal.next),
        hits=tuple(Hit(hit.tenant, printable(hit.said)) for hit in signal.hits),
    )
