"""Settings → what is known of leads from outside, and who is asked about them."""

from __future__ import annotations

from circuit_script.config import Settings
from circuit_script.db.pool import Pool
from circuit_script.enrichment import Enrichment
from circuit_script.enrichment.cache import Cache
from circuit_script.enrichment.store import Store


def make_enrichment(settings: Settings, database: Pool | None) -> Enrichment:
    """Without a ``database`` nothing is written down, and nothing is known that was."""
    asked = settings.enrichment
    return Enrichment(asked, Cache(None if database is None else Store(database), asked.remembered), settings.folder)
