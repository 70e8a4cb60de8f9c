"""What is known of leads from outside: where they live, who they are, how far away. Asked in bulk, and remembered.

Nothing of a source that is away, slow or wrong is raised: each record says why something is missing.
"""

from circuit_script.enrichment.asking import Ask, Call, NotAnswered, Reply
from circuit_script.enrichment.enricher import SOURCES, Enriched, Enrichment
from circuit_script.enrichment.leads import Lead

__all__ = ["SOURCES", "Ask", "Call", "Enriched", "Enrichment", "Lead", "NotAnswered", "Reply"]
