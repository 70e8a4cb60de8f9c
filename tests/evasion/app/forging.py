"""The wire to the worker: broken, flooded, forged, and the platform's own objects in the child turned against it."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import struct
import sys
import time
from typing import Any

from app.behaved import KEPT
from app.swallowing import for_ever
from app.tricks import evaded, trick
from circuit_script import CircuitDB, log
from circuit_script.execution import protocol, session
from circuit_script.execution.protocol import LogLine, Reply, Request, Result, pack, packed


def wire() -> session.Wire:
    """As one finds it who does not know where it is."""
    return next(each for each in gc.get_objects() if isinstance(each, session.Wire))


@trick
def writes_garbage(context: Any) -> None:
    os.write(wire().fileno(), b"\x05\0\0\0garbage" * 100)
    for_ever()


@trick
def claims_a_huge_frame(context: Any) -> None:
    os.write(wire().fileno(), struct.pack("<I", 0xFFFFFFFF))
    for_ever()


@trick
def sends_half_a_frame(context: Any) -> None:
    os.write(wire().fileno(), struct.pack("<I", 1000) + b"x")
    for_ever()


@trick
def sends_deep_nesting(context: Any) -> None:
    body = b"\x94\x02\x01\xa5query\x81\xa1x" + b"\x91" * 1_000_000 + b"\xc0"
    wire()._socket.sendall(struct.pack("<I", len(body)) + body)
    for_ever()


@trick
def answers_itself(context: Any) -> None:
    wire().send(pack(Reply(1, "forged")))
    for_ever()


@trick
def forges_a_result_and_goes_on(context: Any) -> None:
    """The worker believes that it is over: the process must not go on by itself."""
    wire().send(pack(Result("returned")))
    for_ever()


@trick
def forges_a_result_and_burns(context: Any) -> None:
    wire().send(pack(Result("returned")))
    while True:
        with contextlib.suppress(BaseException):
            while True:
                pass


@trick
def forges_two_results(context: Any) -> None:
    wire().send(pack(Result("returned")))
    wire().send(pack(Result("returned")))


@trick
def forges_errors_of_others(context: Any) -> None:
    wire().send(pack(Result("returned", {10**6: "of somebody else's batch"})))
    for_ever()


@trick
def invents_a_kind_of_result(context: Any) -> None:
    wire().send(pack(Result("succeeded")))
    for_ever()


@trick
async def repeats_one_number(context: Any) -> None:
    frame = pack(Request(7, "get", {"object": "Contact", "ids": ["1"]}))
    for _ in range(500):
        wire().send(frame)
    for_ever()


@trick
def floods_and_never_reads(context: Any) -> None:
    frame = pack(Request(1, "query", {"object": "Contact", "where": {"id": ["1"] * 1000}}))
    while True:
        with contextlib.suppress(BlockingIOError):
            wire().send(frame)


@trick
def floods_the_log(context: Any) -> None:
    while True:
        log.info("x" * 10_000)
        print("y" * 10_000)


@trick
def floods_the_log_raw(context: Any) -> None:
    frames = pack(LogLine(packed({"level": "info", "message": ""}))) * 10_000
    while True:
        wire().send(frames)


@trick
def asks_as_somebody_else(context: Any) -> None:
    """The tenant is the worker's to know; what a child says of it is not looked at."""
    frame = pack(Request(1, "get", {"object": "Contact", "ids": ["1"], "tenant": "other"}))
    wire().send(frame)
    time.sleep(0.02)


@trick
async def forgets_its_breach(context: Any) -> None:
    while True:
        running = session.active()
        assert running is not None
        running.breach = None
        with contextlib.suppress(BaseException):
            await CircuitDB.get("Contact", "1")


@trick
async def replaces_the_platform(context: Any) -> None:
    def nothing(*_: Any, **__: Any) -> None:
        return None

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("circuit_script.execution.hook"):
            for name in list(vars(module)):
                if name.startswith(("_on", "install", "silence")):
                    setattr(module, name, nothing)
    session.Session.exceed = lambda self, breach: breach  # type: ignore[method-assign]
    session.Session._must_be_allowed = nothing  # type: ignore[method-assign]
    await forgets_its_breach(context)


@trick
def lets_go_of_everything(context: Any) -> None:
    os.closerange(0, 4096)
    for_ever()


@trick
def puts_another_file_in_its_place(context: Any) -> None:
    with open(os.devnull, "r+b") as nowhere:
        os.dup2(nowhere.fileno(), wire().fileno())
    CircuitDB  # noqa: B018  # what it would now say goes nowhere
    for_ever()


@trick
def scribbles_in_shared_memory(context: Any) -> None:
    chance = random.Random(4)
    words = context._word
    while True:
        with contextlib.suppress(BaseException):
            for place in range(len(words)):
                words[place] = chance.randrange(-(2**63), 2**63)


@trick
def takes_shared_memory_away(context: Any) -> None:
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            os.ftruncate(number, 0)
        with contextlib.suppress(OSError):
            os.posix_fallocate(number, 0, 2**30)
    os._exit(1)


@trick
def says_that_it_never_began(context: Any) -> None:
    """Who has not begun is run again for nothing: an attempt must count."""
    log.info("begun")
    context._word[protocol.STARTED] -= 1
    KEPT["begun"] = True
    os._exit(0)


@trick
def removes_the_audit_hook(context: Any) -> None:
    for hook in gc.get_objects():
        if getattr(hook, "__name__", "") == "_on_event":
            hook.__code__ = (lambda *_: None).__code__
            break
    if not hasattr(sys, "addaudithook"):
        evaded("no hooks")
    sys.addaudithook(lambda *_: None)
    for_ever()
