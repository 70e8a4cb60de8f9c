"""Cheap coverage: on PYTHONPATH while coverage is measured (`make test`), and nothing otherwise.

Those who run the tests count by SlipCover, which puts a probe on each line that removes itself once it was hit: where
coverage.py's tracer takes half as much time again as the tests, that takes none. What they saw is written as
coverage.py's own data, and combined with what all other processes wrote.

A child inherits all that its zygote has seen, and would write that down once more when it ends. So the zygote writes it
down before it forks, and a child has only its own lines to tell: 10 ms of each child's end instead of 90.
"""

import os
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "circuit_script"
COUNTED = "COVERAGE_PROCESS_CONFIG" in os.environ
WORKER = "import sys;exec(eval(sys.stdin.readline()))"  # how pytest-xdist starts who runs its tests


def count_by_probes() -> None:
    import atexit

    import slipcover
    from coverage import Coverage, CoverageData
    from slipcover.importer import FileMatcher, SlipcoverMetaPathFinder

    tracing = Coverage.current()
    assert tracing is not None
    tracing.stop()
    probes = slipcover.Slipcover(immediate=True)
    files = FileMatcher(sources=[str(SOURCE)])
    sys.meta_path.insert(0, SlipcoverMetaPathFinder(probes, files))
    slipcover.wrap_pytest(probes, files)  # which loads the package itself, as it has a plugin
    process, end = os.getpid(), os._exit

    def write() -> None:
        seen = {file: {line for line in lines if line > 0} for file, lines in probes._get_newly_seen().items()}
        if os.getpid() == process and seen:  # an end may come twice
            data = CoverageData(basename=tracing.get_option("run:data_file"), suffix=f"probes.{process}")
            data.add_lines(seen)
            data.write()

    def write_and_end(status: int) -> None:
        write()
        end(status)

    os._exit = write_and_end  # type: ignore[assignment]  # never returns, as the original
    atexit.register(write)


if COUNTED and WORKER in sys.orig_argv:
    count_by_probes()

if COUNTED and "circuit_script.execution.zygote.zygote" in sys.orig_argv:
    zygote = os.getpid()  # tests/zygotes.py forks zygotes, and changes it in them

    def save() -> None:
        from coverage import Coverage

        if os.getpid() == zygote and (measured := Coverage.current()) is not None:
            measured.save()

    os.register_at_fork(before=save)
