"""Columns whose values repeat are packed as any others are."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from circuit_script.db.binary_arrays import repeated_texts, repeated_uuids, texts, uuids

A_TEXT = st.none() | st.sampled_from(["", "info", "ä"]) | st.text(st.characters(codec="utf-8"))


@given(st.lists(A_TEXT))
def test_texts(values: list[str | None]) -> None:
    assert repeated_texts(values) == texts(values)


@given(st.lists(st.sampled_from([UUID(int=0), UUID(int=2**128 - 1)]) | st.uuids()))
def test_uuids(values: list[UUID]) -> None:
    assert repeated_uuids(values) == uuids(values)
