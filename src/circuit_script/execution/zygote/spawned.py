"""A child that is an interpreter of its own: ``python -m circuit_script.execution.zygote.spawned``.

For apps that start threads, or hold locks, while they are imported: a fork has neither. It imports the app itself, so
it takes as long to begin as the app takes to import. Everything else is as in a forked child.
"""

from __future__ import annotations

import gc
import os
import socket
import sys

import msgspec

from circuit_script.errors import AppError
from circuit_script.execution import hardening, whereabouts
from circuit_script.execution.authoring.handlers import registry
from circuit_script.execution.authoring.starting import NotStarted
from circuit_script.execution.child import child, hooks
from circuit_script.execution.isolation.confine import Confined
from circuit_script.execution.nursery import Assignment
from circuit_script.execution.zygote.loading import load


class Birth(msgspec.Struct, frozen=True):
    """What a spawned child is started with, on its command line. ``sock`` and ``memory`` are descriptors."""

    parent: int
    sock: int
    memory: int
    slot: int
    confined: Confined
    assignment: Assignment


def arguments(birth: Birth) -> list[str]:
    """The command line."""
    return [sys.executable, "-P", "-m", "circuit_script.execution.zygote.spawned", msgspec.json.encode(birth).decode()]


def main(argument: str) -> None:
    """Confine this process, import the app, and serve."""
    birth = msgspec.json.decode(argument, type=Birth)
    hardening.die_with_parent(birth.parent)
    hardening.adopt_orphans()
    for descriptor in (birth.sock, birth.memory):
        os.set_inheritable(descriptor, False)
    birth.confined.child(birth.slot)
    whereabouts.know(birth.assignment.folder)
    apps: child.Apps = {}
    broken = None
    try:
        apps, _ = load(birth.assignment)
    except AppError as error:  # its zygote could: something outside of its files is another now
        broken = NotStarted(f"the app does not import in a new process: {error.detail}")
    hooks.install()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)  # as a forked child has it
    child.serve(socket.socket(fileno=birth.sock), birth.memory, registry, apps, broken)


if __name__ == "__main__":
    main(sys.argv[1])
