"""Reconciliation: what webhooks have not told is found by asking the CRM what has changed, and takes the same road."""

from __future__ import annotations

from circuit_script.events.reconcile.poll import CHORE, Poll, Polled, Target, changed_field, read_cursors

__all__ = ["CHORE", "Poll", "Polled", "Target", "changed_field", "read_cursors"]
