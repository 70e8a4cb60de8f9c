"""Settings → what the callouts of a worker share."""

from __future__ import annotations

from circuit_script.config import FILE, Settings
from circuit_script.errors import ConfigError
from circuit_script.execution.broker.callouts.addresses import Private
from circuit_script.execution.broker.callouts.fetch import CalloutParts, Named, SpendQuota, no_quota
from circuit_script.execution.broker.callouts.guard import Guard
from circuit_script.execution.broker.callouts.hosts import Host


def make_callouts(settings: Settings, spend: SpendQuota = no_quota, secrets: Named | None = None) -> CalloutParts:
    """Raises ConfigError for a list that names what is no host."""
    asked = settings.callouts
    try:
        for host in asked.egress or ():
            Host.of(host)
        private = Private.of(asked.private)
    except ValueError as error:
        raise ConfigError(
            f"{settings.folder / FILE}: [callouts]: {error}.",
            cure='Write hosts like "api.example.com" or "*.example.org"; private also takes "10.0.0.0/8" and '
            '"127.0.0.1:9000".',
        ) from None
    return CalloutParts(guard=Guard(asked.egress, private), spend=spend, attempts=asked.attempts, secrets=secrets)
