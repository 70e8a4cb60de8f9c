"""Whether the loops over words and characters are compiled (`loops.pyx`): they are where the package was built with a
compiler. Where they are not, numpy does the same, to the last bit, and takes longer."""

from __future__ import annotations

from importlib import import_module

try:
    import_module("circuit_script.judgment.loops")
except ImportError:
    COMPILED = False
else:
    COMPILED = True
