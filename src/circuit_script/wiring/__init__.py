"""Settings → running parts: the only place that builds things, one file per thing that is built."""

from circuit_script.wiring.bench import Bench, open_bench
from circuit_script.wiring.live import Live, Refused, Reloaded, Switched, Unchanged
from circuit_script.wiring.running import Worker
from circuit_script.wiring.tap import Tap
from circuit_script.wiring.trial import Trial
from circuit_script.wiring.trial_result import TrialResult
from circuit_script.wiring.worker import run_worker

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
