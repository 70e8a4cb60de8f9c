"""Cheap coverage of what is forked: on PYTHONPATH while coverage is measured (`make test`), and nothing otherwise.

A child inherits all that its zygote has seen, and would write that down once more when it ends. So the zygote writes it
down before it forks, and a child has only its own lines to tell: 10 ms of each child's end instead of 90.
"""

import os
import sys

if "COVERAGE_PROCESS_CONFIG" in os.environ and "circuit_script.execution.zygote.zygote" in sys.orig_argv:
    zygote = os.getpid()  # tests/zygotes.py forks zygotes, and changes it in them

    def save() -> None:
        from coverage import Coverage

        if os.getpid() == zygote and (measured := Coverage.current()) is not None:
            measured.save()

    os.register_at_fork(before=save)
