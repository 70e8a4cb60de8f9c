"""What is said where a message, or a webhook, has nowhere to go."""

from __future__ import annotations

from circuit_script.errors import RequestRefused
from circuit_script.schemas.messages import MESSENGERS


def nowhere(connector: str, target: str) -> RequestRefused:
    """The connector is not set up, or knows no such target."""
    if connector in MESSENGERS:
        return RequestRefused(
            f"{connector} is not set up.",
            cure=f"Add [connectors.{connector}] to circuit.toml, and its keys to the secrets.",
        )
    return RequestRefused(
        f"{connector} knows no address {target!r}.", cure=f"Add [addresses.{target}] with its url to circuit.toml."
    )
