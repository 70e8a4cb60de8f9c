"""The filters of system calls are programs that the kernel takes, on each kind of machine."""

from __future__ import annotations

import struct

import pytest

from circuit_script.execution.isolation import seccomp

LONGEST = 4096  # instructions, by the kernel
RETURN = 0x06


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("kind", ["strict", "usual"])
def test_a_filter_is_well_formed(machine: str, kind: str) -> None:
    program = list((seccomp._program if kind == "strict" else seccomp._usual)(machine))
    assert 0 < len(program) < LONGEST
    assert program[-1][0] == RETURN
    for place, instruction in enumerate(program):
        assert len(struct.pack("<HBBI", *instruction)) == 8
        _, yes, no, _ = instruction
        assert place + 1 + max(yes, no) <= len(program) - (instruction[0] != RETURN)
