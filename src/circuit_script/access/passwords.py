"""Passwords: argon2id, made and compared in two threads at most, since each takes 32 MB and a core for a moment."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from circuit_script.errors import PeopleRefused

SHORTEST = 12  # characters
LONGEST = 1024
AT_ONCE = 2
MAX_WAITING = 16  # more are refused: who waits for longer has given up

_hasher = PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)
# What a password is compared with where there is none; no password is right for it. Made with the same parameters.
NOBODYS = "$argon2id$v=19$m=32768,t=3,p=1$kzkCVD1tpYycOCx0wqvVDA$QbGxrAKPeBelcyrJkk0cwFXwWdsOQVTb0Tch7GPhUIA"
_under_way = 0

T = TypeVar("T")


class Busy(Exception):
    """Too many passwords wait to be compared."""


def refuse_weak(password: str) -> None:
    """Raises PeopleRefused for a password that is too short, too easily guessed, or no text."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise PeopleRefused(f"A password has {SHORTEST} to {LONGEST:,} characters.")
    if len(set(password)) < 5:
        raise PeopleRefused("The password repeats too few characters.", cure="Take a sentence of your own.")
    if _encoded(password) is None:
        raise PeopleRefused("The password is no text.")


async def hashed(password: str) -> str:
    """What is stored of a password. Raises Busy."""
    encoded = _encoded(password) or b""
    return await _in_thread(lambda: _hasher.hash(encoded))


async def is_right(password: str, stored: str | None) -> bool:
    """Whether it is the one that is stored; as much work where there is none. Raises Busy."""
    encoded = _encoded(password) if len(password) <= LONGEST else None
    return await _in_thread(lambda: _verify(encoded, stored))


def is_outdated(stored: str) -> bool:
    """Whether it was hashed with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)


def _verify(encoded: bytes | None, stored: str | None) -> bool:
    try:
        _hasher.verify(stored or NOBODYS, encoded or b"")
    except (VerificationError, InvalidHashError):
        return False
    return encoded is not None and stored is not None


def _encoded(password: str) -> bytes | None:
    """Keyboards differ in how they compose letters. None for what is no Unicode text."""
    try:
        return unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:
        return None


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")


async def _in_thread(work: Callable[[], T]) -> T:
    global _under_way
    if _under_way >= MAX_WAITING:
        raise Busy
    _under_way += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads(), work)
    finally:
        _under_way -= 1
