"""How a handler speaks to the outside: what it asks about a callout, and send_webhook, which waits for success."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_script.errors import CalloutRefused, IrreversibleRefused, QuotaExceeded
from circuit_script.execution.authoring.records import Record
from circuit_script.execution.decisions import Decision
from circuit_script.execution.outcome import LONGEST_RETRY
from circuit_script.execution.session import current_record, session

Refusal = tuple[str, str, str, float | None]  # detail, cure, page, retry_after


class QuotaDeferred(QuotaExceeded, Decision):
    """The tenant's quota is used up.

    Nobody has to catch it: left alone, it puts off the record of ``context.record`` around it, or the whole batch.
    """

    def __init__(self, detail: str = "", *, retry_after: float | None = None, **more: Any) -> None:
        super().__init__(detail, retry_after=retry_after, **more)
        self.after, self.reason = put_off(retry_after), detail


def put_off(retry_after: float | None) -> float:
    """The seconds for which a record waits for a quota."""
    return min(retry_after or 60.0, float(LONGEST_RETRY))


def refusal_of(answer: Any) -> Refusal | None:
    """What the broker says against a callout, if it does."""
    if isinstance(answer, dict) and (said := answer.get("refused")) is not None:
        detail, cure, page, retry_after = said
        return detail, cure, page, retry_after
    return None


def allowed(answer: Any) -> Any:
    """The broker's answer about a callout. Raises CalloutRefused, QuotaExceeded where it is for that, and
    IrreversibleRefused."""
    if (refusal := refusal_of(answer)) is not None:
        detail, cure, page, retry_after = refusal
        if page == IrreversibleRefused.page:
            raise IrreversibleRefused(detail, cure=cure)
        kind = CalloutRefused
        if page == QuotaExceeded.page:
            kind = QuotaDeferred if answer.get("defer") else QuotaExceeded
        raise kind(detail, cure=cure, page=page, retry_after=retry_after)
    return answer


async def send_webhook(to: str, payload: Mapping[str, Any], *, record: Record | None = None) -> str:
    """Post ``payload`` to the configured address named ``to`` once the execution (or its record) has succeeded.

    Returns the effect's id. It belongs to ``record``, or to the record of the ``context.record`` block around it.
    """
    place = current_record.get() if record is None else record.place
    asked = {"connector": "webhook", "operation": "post", "to": to, "payload": dict(payload), "record": place}
    reply = await session().request("send", asked, dict[str, str])
    return reply["id"]
