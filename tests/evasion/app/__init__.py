"""Handlers that try to get out: each function is one trick. What must become of it stands in tests/evasion/table.py.

A trick that succeeds where it must not says so: it logs a line that begins with EVADED.
"""
