"""How many of its requests of 24 hours an org has used, as Salesforce says in every answer."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

import httpx
import structlog

from circuit_script.connectors.api import Api, Failed

log = structlog.get_logger()

HEADER = "sforce-limit-info"
FULL = 0.9  # of them
MOST = 10_000  # tenants
_SAID = re.compile(r"(?:^|[,;\s])api-usage=([0-9]{1,12})/([0-9]{1,12})", re.ASCII)


class CountingApi(Api):
    """An API that reads ``Sforce-Limit-Info: api-usage=18/5000``. ``usage`` is used and allowed, by tenant."""

    usage: OrderedDict[str, tuple[int, int]]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.usage = OrderedDict()

    async def send(self, tenant: str, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            answer = await super().send(tenant, method, path, **more)
        except Failed as failed:
            if failed.response is not None:
                self._note(tenant, failed.response)
            raise
        self._note(tenant, answer)
        return answer

    def _note(self, tenant: str, answer: httpx.Response) -> None:
        found = _SAID.search(answer.headers.get(HEADER, "")[:500])
        if found is None:
            return
        used, allowed = int(found[1]), int(found[2])
        before = self.usage.get(tenant)
        self.usage[tenant] = (used, allowed)
        self.usage.move_to_end(tenant)
        if len(self.usage) > MOST:
            self.usage.popitem(last=False)
        if allowed and used >= FULL * allowed and (before is None or before[0] < FULL * before[1]):
            log.warning("salesforce.usage", tenant=tenant, used=used, allowed=allowed, next="requests go on until none")
