"""Settings → how effects are delivered: the client that carries them."""

from __future__ import annotations

import httpx

from circuit_script.execution.broker.callouts.transport import authorities, no_cookies

KEPT = 100  # connections to vendors that are kept for the next delivery


def open_deliveries_client() -> httpx.AsyncClient:
    """The courier bounds what is on its way to each target. A bound for all of them together would be used up by those
    that hang, and who is well would count as down."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=KEPT)
    return httpx.AsyncClient(verify=authorities(), follow_redirects=False, cookies=no_cookies(), limits=limits)
