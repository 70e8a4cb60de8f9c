"""What is remembered of a secret is little, however long it is and however many there are."""

from __future__ import annotations

import secrets as random
import tracemalloc

from circuit_script.telemetry.redact import REDACTED, Known

HEAD = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."


def test_thousands_of_long_tokens_take_a_few_times_their_length() -> None:
    tokens = [HEAD + random.token_urlsafe(750) for _ in range(1000)]
    known = Known()
    tracemalloc.start()
    try:
        for each in tokens:
            known.learn(each)
        room, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert room < 5 * sum(map(len, tokens))
    assert known.without(f"a {tokens[17]}, b") == f"a {REDACTED}, b"
