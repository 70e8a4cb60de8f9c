"""Alerts: what is wrong, who is told of it, and what a person says to it."""

from circuit_script.telemetry.alerts.alert import (
    SEVERITIES,
    Alert,
    Hit,
    Severity,
    Told,
    acknowledge,
    alerts_of,
    silence,
)

__all__ = ["SEVERITIES", "Alert", "Hit", "Severity", "Told", "acknowledge", "alerts_of", "silence"]
