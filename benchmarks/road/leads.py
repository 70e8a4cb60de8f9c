"""Virtual LPR: 10,000 leads with 20 signals each, in this process and through the whole road."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from benchmarks import contestants
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from circuit_script.agents import VirtualLPR
from circuit_script.cli.demo.vendor import Payload

LEADS = 10_000
SIGNALS = 20
KINDS = (
    "appointment_booked", "quote_or_tour_request", "callback_request", "inbound_call", "contact_form",
    "missed_inbound_call", "pricing_view", "location_view", "case_study_view", "return_visit", "ad_click",
    "positive_reply", "price_question", "neutral_reply", "event_attended", "download", "link_click",
    "careers_view", "unanswered_call", "no_show",
)  # fmt: skip

TRIGGERS = """
from circuit_script.agents.virtual_lpr.trigger import LeadScoring

__all__ = ["LeadScoring"]
"""


async def measure(bench: Bench) -> list[Figure]:
    bench.says("scoring 10,000 leads")
    leads = [_lead(bench) for _ in range(LEADS)]
    return [_in_process(leads, bench.vendor.now), await _through_the_road(bench, leads)]


def _in_process(leads: list[Payload], now: datetime) -> Figure:
    """Scores alone; reasons and next_change_at are computed on demand."""
    for lead in leads[:200]:
        VirtualLPR.calculate(lead, None, lead["lpr_signals"], now)
    began = time.perf_counter()
    for lead in leads:
        VirtualLPR.calculate(lead, None, lead["lpr_signals"], now)
    seconds = time.perf_counter() - began
    return Figure("lpr_10k_s", round(seconds, 2), "s", "< 1", f"{SIGNALS} signals each, one core, no reasons")


async def _through_the_road(bench: Bench, leads: list[Payload]) -> Figure:
    size = bench.size(LEADS, 2000)
    requests = [bench.request(_delivery(lead)) for lead in leads[:size]]
    warm = [bench.request(_delivery(_lead(bench))) for _ in range(300)]
    async with contestants.ours(
        bench.place("ours"), await bench.database(), bench.vendor.public_key, triggers=TRIGGERS
    ) as ours:
        await bench.road(ours, warm)
        run = await bench.road(ours, requests)
    seconds = run.seconds * LEADS / size
    note = f"{size:,} signed webhooks with {SIGNALS} signals each, scores with reasons in the CRM"
    return Figure("leads_10k_road_s", round(seconds, 2), "s", "< 5", note)


def _lead(bench: Bench) -> Payload:
    draw = bench.vendor.random
    signals: list[dict[str, Any]] = []
    for _ in range(SIGNALS):
        at = bench.vendor.now - timedelta(minutes=draw.randint(5, 60 * 24 * 60))
        signals.append({"type": draw.choice(KINDS), "at": at.isoformat(timespec="seconds")})
    return bench.vendor.contact(lpr_signals=signals)


def _delivery(lead: Payload) -> Payload:
    """The signals as a custom field, as a form or another system would leave them in the CRM."""
    plain = {name: value for name, value in lead.items() if name != "lpr_signals"}
    custom = [*lead["customFields"], {"id": "lpr_signals", "value": lead["lpr_signals"]}]
    return {"type": "ContactCreate", **plain, "customFields": custom}
