"""Say what to do when this Python cannot carry Circuit Script. Runs on any Python 3."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  # this file is for the Pythons that are too old
    sys.exit(
        "Circuit Script needs Python 3.11 or newer, and "
        + sys.executable
        + " is older. Install a newer one and name it: make PYTHON=python3.11 dev"
    )
try:
    import ensurepip  # noqa: F401  # only asked whether it is there: `venv` needs it
except ImportError:
    sys.exit("This Python has no `ensurepip`, so it cannot make .venv. On Debian: apt install python3-venv")
