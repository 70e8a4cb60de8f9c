"""What the pool and its zygote say to each other, one message per packet of a SOCK_SEQPACKET socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from circuit_script.execution.outcome import HandlerSpec
from circuit_script.governor import Limits

MAX_PACKET = 128 * 1024


@dataclass(frozen=True, slots=True)
class WebApp:
    """The author's WSGI or ASGI app: where it is ("module:attr"), and what holds for its routes. Seconds."""

    app: str
    auth: str = "none"
    deadline: float = 30.0


@dataclass(frozen=True, slots=True)
class Hosting:
    """How children live: how far they are fenced in, and whether they are forked or spawned. ``home`` is the folder
    with the settings and the state that are hidden, where it is not the one that is imported. ``probes`` is the
    descriptor of the memory that counts lines (`authoring.probes`), -1 for none. ``python`` is the interpreter of the
    app's own packages, empty for this one."""

    isolation: Literal["standard", "strict"] = "standard"
    start: Literal["fork", "spawn"] = "fork"
    home: str = ""
    probes: int = -1
    python: str = ""


class Assignment(msgspec.Struct, frozen=True):
    """What a zygote is started with, on its command line. ``scratch`` is a folder for its temporary files."""

    control: int
    parent: int
    folder: str
    app: str
    limits: Limits
    web: WebApp | None = None
    objects: tuple[str, ...] = ()
    hosting: Hosting = Hosting()
    scratch: str = ""


class Fork(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """To the zygote: make a child; its socket and its shared memory come with the packet."""

    number: int


class Handler(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """From the zygote: the app has this handler."""

    spec: HandlerSpec


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The app is imported; every handler was named. ``fingerprint`` is that of its files.

    ``slow`` says that a child needs a while before it greets. ``hides`` says whether settings are out of its sight.
    """

    warnings: tuple[str, ...]
    fingerprint: str
    slow: bool = False
    hides: bool = True


class Broken(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The app cannot be imported; the zygote ends."""

    detail: str
    cure: str
    page: str


class Forked(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The child exists; its pidfd comes with the packet."""

    number: int
    pid: int


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A child has ended and was reaped, and its orphans were killed. ``code`` is negative for a signal."""

    pid: int
    code: int


class NotForked(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The system has no room for another process."""

    number: int
    reason: str


class Document(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A part of the OpenAPI document of the app's endpoints, in JSON; the parts come in order, before Ready."""

    part: bytes


FromZygote = Handler | Ready | Broken | Forked | Ended | NotForked | Document

from_zygote: msgspec.msgpack.Decoder[FromZygote] = msgspec.msgpack.Decoder(FromZygote)
to_zygote: msgspec.msgpack.Decoder[Fork] = msgspec.msgpack.Decoder(Fork)
encode = msgspec.msgpack.Encoder().encode
