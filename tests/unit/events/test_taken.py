"""How many children the running batches take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from circuit_script.events.taken import Taken

SIZES = {"alone": 1, "chat": 3, "call": 2}


@given(st.lists(st.tuples(st.sampled_from(["acme", "bolt"]), st.sampled_from(sorted(SIZES)), st.integers(0, 20))))
def test_those_that_share_a_child_count_once(steps: list[tuple[str, str, int]]) -> None:
    taken = Taken()
    running: list[tuple[str, str, Callable[[Any], None]]] = []
    for tenant, handler, leaves in steps:
        if leaves < len(running):
            running.pop(leaves)[2](None)
        counted = Counter((who, what) for who, what, _ in running)
        seat = taken.has_seat(tenant, handler, SIZES[handler])
        assert seat == (counted[tenant, handler] % SIZES[handler] > 0)
        before = taken.total
        running.append((tenant, handler, taken.enter(tenant, handler, SIZES[handler])))
        assert taken.total == before + (not seat)
        counted[tenant, handler] += 1
        for who in ("acme", "bolt"):
            children = [math.ceil(n / SIZES[what]) for (one, what), n in counted.items() if one == who]
            assert taken.of(who) == sum(children)
    for _, _, leave in running:
        leave(None)
    assert taken.total == taken.of("acme") == taken.of("bolt") == 0
