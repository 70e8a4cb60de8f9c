"""How far handlers are fenced in, and how far they could be."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

from circuit_script.cli.doctor.check import Check, bad, good, warning
from circuit_script.config import Settings
from circuit_script.execution.hardening import governed_environment
from circuit_script.execution.isolation.probe import Found

PATIENCE = 20.0  # seconds


def isolation(settings: Settings) -> Check:
    """What is active, and what is possible here: tried in a process that ends at once."""
    wanted = settings.worker.isolation
    try:
        found = _tried(settings)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        return bad("isolation", f"It cannot be tried: {error}", "Look for what ends python here.")
    possible = "strict is possible here" if not found.missing else f"strict is not possible here: {found.missing}"
    if wanted == "strict":
        if found.missing:
            return bad("isolation", f"strict is set and not possible: {found.missing}", found.cure)
        return good("isolation", f"strict is active: {found.how}")
    if not found.hides:
        said = f"standard is active, and handlers can read circuit.toml and .circuit; {possible}"
        cure = "Allow user namespaces, run as root, or keep secrets in the environment (DATABASE_URL, CIRCUIT_…)."
        return warning("isolation", said, cure)
    return good("isolation", f"standard is active; {possible}")


def _tried(settings: Settings) -> Found:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "circuit_script.execution.isolation.probe", str(settings.folder)],
        cwd=settings.folder,
        env=governed_environment(dict(os.environ)),
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Found)
