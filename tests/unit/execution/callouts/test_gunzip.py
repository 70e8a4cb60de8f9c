from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_script.execution.broker.callouts.gunzip import Gunzip
from circuit_script.governor import LimitExceeded


def unpacked(raw: bytes, size: int = 1000, ceiling: int = 10_000) -> bytes:
    """What is unpacked of it when it comes in pieces of a size."""
    gunzip = Gunzip(ceiling)
    for place in range(0, len(raw), size):
        if not gunzip.feed(raw[place : place + size]):
            break
    return gunzip.end()


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 200))
def test_every_member_is_unpacked_however_it_comes(parts: list[bytes], size: int) -> None:
    assert unpacked(b"".join(map(gzip.compress, parts)), size) == b"".join(parts)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("after", [b"\0" * 50, b"\x1f", b"\x1f\x8c", b"anything"])
def test_what_follows_the_last_member_is_no_part_of_the_body(after: bytes, size: int) -> None:
    assert unpacked(gzip.compress(b"hello") + after, size) == b"hello"


def test_no_more_is_wanted_after_the_end_and_none_of_it_is_kept() -> None:
    gunzip = Gunzip(1000)
    assert gunzip.feed(gzip.compress(b"hello"))
    assert not gunzip.feed(b"\0" * 100_000)
    assert gunzip.end() == b"hello"


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("left", [1, 2, 12, -1, -8])
def test_a_body_that_was_cut_off_is_no_body(left: int, size: int) -> None:
    with pytest.raises(zlib.error):
        unpacked(gzip.compress(b"hello" * 100)[:left], size)
    with pytest.raises(zlib.error):
        unpacked(gzip.compress(b"first") + gzip.compress(b"hello" * 100)[: max(left, 2) if left > 0 else left], size)


def test_what_is_no_gzip_is_none() -> None:
    with pytest.raises(zlib.error):
        unpacked(b"plain text")
    assert unpacked(b"") == b"", "an answer to HEAD has no body"


@pytest.mark.parametrize("members", [1, 100])
def test_the_ceiling_is_of_all_members_together(members: int) -> None:
    raw = gzip.compress(b"x" * (1000 // members)) * members
    assert len(unpacked(raw, ceiling=1000)) == 1000
    with pytest.raises(LimitExceeded, match="callout_bytes"):
        unpacked(raw, ceiling=999)
