"""Run the tests of an earlier version against the schema of this one: what is released must go on working on it.

    python scripts/one_release_back.py v0.1.0 [tests/integration/test_intake.py ...]

The earlier code and its tests come from git, the migrations from here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1]
MIGRATIONS = Path("src/circuit_script/db/migrations")
TESTS = ("tests/integration", "-m", "not slow and not story")
# They are about the files themselves.
NOT_THESE = ("--ignore=tests/integration/test_migrate.py", "--deselect=tests/unit/test_migration_files.py")


def main(reference: str, *tests: str) -> int:
    """pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="one-back-") as place:
        archive = subprocess.run(["git", "archive", reference], cwd=HERE, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", place], input=archive, check=True)
        shutil.rmtree(Path(place, MIGRATIONS))
        shutil.copytree(HERE / MIGRATIONS, Path(place, MIGRATIONS))
        environment = {**os.environ, "PYTHONPATH": str(Path(place, "src"))}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(tests or TESTS), *NOT_THESE]
        return subprocess.run(command, cwd=place, env=environment).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(*sys.argv[1:]))
