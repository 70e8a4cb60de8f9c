"""Models on the trusted side: what a request may cost at worst, who answers it, and what it did cost."""

from circuit_script.llm.models import Models, Plan
from circuit_script.llm.prices import Price, Prices
from circuit_script.llm.provider import Provider

__all__ = ["Models", "Plan", "Price", "Prices", "Provider"]
