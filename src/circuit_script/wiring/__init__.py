"""Settings → running parts: the only place that builds things, one file per thing that is built.

Each name is imported when it is first asked for: who tries an app, or imports it, needs no worker.
"""

from typing import TYPE_CHECKING

from circuit_script.lazy import names_of

if TYPE_CHECKING:
    from circuit_script.wiring.bench import Bench, open_bench
    from circuit_script.wiring.live import Live, Refused, Reloaded, Switched, Unchanged
    from circuit_script.wiring.running import Worker
    from circuit_script.wiring.tap import Tap
    from circuit_script.wiring.trial import Trial
    from circuit_script.wiring.trial_result import TrialResult
    from circuit_script.wiring.worker import run_worker

_HOMES = {
    "Bench": "bench",
    "Live": "live",
    "Refused": "live",
    "Reloaded": "live",
    "Switched": "live",
    "Tap": "tap",
    "Trial": "trial",
    "TrialResult": "trial_result",
    "Unchanged": "live",
    "Worker": "running",
    "open_bench": "bench",
    "run_worker": "worker",
}

__all__ = [
    "Bench",
    "Live",
    "Refused",
    "Reloaded",
    "Switched",
    "Tap",
    "Trial",
    "TrialResult",
    "Unchanged",
    "Worker",
    "open_bench",
    "run_worker",
]

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, _HOMES)
