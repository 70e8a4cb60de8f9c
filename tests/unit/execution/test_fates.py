"""Why a process ended, in words."""

from __future__ import annotations

import pytest

from circuit_script.execution.host.fates import told


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "the handler's process ended"),
        (0, "the handler left its process with exit code 0"),
        (76, "the handler closed its connection to the platform"),
        (-9, "the handler's process was killed by SIGKILL"),
        *((-number, f"killed by signal {number}") for number in (32, 33, 40, 63, 99)),
    ],
)
def test_every_code_has_words(code: int | None, said: str) -> None:
    assert told(code).endswith(said)
