"""Settings → running parts: the only place that builds things, one file per thing that is built."""

from circuit_script.wiring.worker import Worker, run_worker

__all__ = ["Worker", "run_worker"]
