"""``@endpoint``: how an author declares that a function answers HTTP requests, and HTTPProblem, its way to say no.

What is declared stands in the registry (as every handler) and in ``routes``, from which `endpoint_app` builds the app.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import FunctionType
from typing import Any, TypeVar

import msgspec

from circuit_script.execution.authoring.handlers import registry
from circuit_script.execution.authoring.patterns import Hole, Part, pattern_of, segments_of, unnamed
from circuit_script.execution.authoring.place import AtCeiling, Options, Place
from circuit_script.execution.outcome import EndpointSpec, Way
from circuit_script.governor import Limits

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
AUTHS = ("key", "none")
PREFIX = "/api/"
RESERVED = ("status",)  # below PREFIX; the platform's own
DEADLINE, LONGEST_DEADLINE = 30.0, 300.0  # seconds
PROBLEM_TYPE = "application/problem+json"
PATH_PAGE = "endpoint-path"  # the page of what is wrong with a path

_PARAMETER = re.compile(r"\{([A-Za-z_]\w*)(:path)?\}")
_LITERAL = re.compile(r"[A-Za-z0-9._~@+-]*")

F = TypeVar("F", bound=Callable[..., Any])


class HTTPProblem(Exception):
    """An answer that says no, as problem+json (RFC 9457): ``raise HTTPProblem(404, "no such lead")``.

    ``status`` is from 400 to 599. What the handler wrote until then is discarded. Further ``members`` go into the
    document: ``HTTPProblem(409, "taken", seats=0)``.
    """

    media_type = PROBLEM_TYPE

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        title: str = "",
        type: str = "about:blank",
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"the status of a problem is from 400 to 599, not {status!r}")
        self.status = int(status)
        self.detail = detail
        self.title = title or phrase_of(self.status)
        self.type = type
        self.headers = dict(headers or {})
        self.members = members
        super().__init__(f"{self.status} {self.title}: {detail}".removesuffix(": "))

    def body(self) -> bytes:
        """The document. Raises TypeError for a member that JSON cannot hold."""
        own = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return msgspec.json.encode({**self.members, **own})


def phrase_of(status: int) -> str:
    """A status in words."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


@dataclass(frozen=True, slots=True)
class Route:
    """What `endpoint_app` needs to know of an endpoint. ``path`` is as FastAPI writes it, below /api/; ``pattern`` is
    the expression by which it is found, with its parameters as groups."""

    function: FunctionType
    path: str
    pattern: str
    examples: tuple[Any, ...]


routes: dict[str, Route] = {}  # by the handler's name


def endpoint(
    path: str,
    *,
    methods: str | Sequence[str] | None = None,
    deadline: float | None = None,
    auth: str = "key",
    examples: Sequence[Any] | None = None,
    limits: Limits | Mapping[str, float] | None = None,
    share_child: bool | None = None,
    concurrency: int | None = None,
    egress: Sequence[str] | None = None,
    budget: float | None = None,
    at_ceiling: AtCeiling | None = None,
    allow_irreversible: Sequence[str] | None = None,
) -> Callable[[F], F]:
    """Answer requests to ``/api/<path>`` with what the function returns; its parameters are as in FastAPI.

    ``path`` may hold parameters: "leads/{lead_id}", and {rest:path} for one that spans slashes. ``methods`` is GET
    unless said. ``deadline`` is in seconds from the request's arrival (30 unless said, at most 300); said, it is the
    limit of wall time too. ``auth`` is "key" (the caller sends an API key, which names the tenant) or "none".
    ``examples`` are bodies for the API's document; ``limits``, ``share_child``, ``concurrency``,
    ``egress``, ``budget``, ``at_ceiling`` and ``allow_irreversible`` are as for ``@trigger``. A parameter
    ``context``, or one annotated Context, gets the execution's context. A function that yields answers with
    server-sent events. An answer with a status of 400 or more, and any exception, discards what was written.
    """

    def declare(function: F) -> F:
        if not isinstance(function, FunctionType):
            registry.add_endpoint(function, EndpointSpec(()), Options())  # says what is wrong with it
        place = Place.of(function)  # type: ignore[arg-type]  # it is one: the line above raises
        parts = _checked_path(place, path)
        way = Way(
            methods=_checked_methods(place, methods),
            path=pattern_of(unnamed(parts)),
            shown=PREFIX + path.removeprefix("/"),
            rank=(*_rank(parts), len(routes)),
        )
        spec = EndpointSpec(
            ways=(way,),
            deadline=checked_deadline(place, deadline),
            auth=checked_auth(place, auth),
        )
        _must_be_alone(place, spec)
        options = Options(
            limits=with_deadline(limits, deadline),
            share_child=share_child,
            concurrency=concurrency,
            egress=egress,
            budget=budget,
            at_ceiling=at_ceiling,
            allow_irreversible=allow_irreversible,
        )
        registry.add_endpoint(function, spec, options)
        routes[place.handler] = Route(function, way.shown, pattern_of(parts), _checked_examples(place, examples))  # type: ignore[arg-type]
        return function

    return declare


def _checked_path(place: Place, path: Any) -> list[Part]:
    """The path with its parameters."""
    if not isinstance(path, str) or not path.strip("/"):
        place.refuse(
            f"its path is {path!r}.", 'Write what follows /api/, like "chat" or "leads/{lead_id}".', page=PATH_PAGE
        )
    if path.removeprefix("/").startswith("api/"):
        place.refuse(
            f"its path is {path!r}.", f'/api/ comes by itself: write "{path.split("api/", 1)[1]}".', page=PATH_PAGE
        )
    segments = path.removeprefix("/").split("/")
    found = [_checked_segment(place, path, segment) for segment in segments]
    holes = [part for parts in found for part in parts if isinstance(part, Hole)]
    if len({hole.name for hole in holes}) != len(holes):
        place.refuse(f"its path {path!r} names a parameter twice.", "Give one of them another name.", page=PATH_PAGE)
    if sum(hole.spans for hole in holes) > 1:
        place.refuse(
            f"its path is {path!r}.", "One {parameter:path} is enough: what two span cannot be told.", page=PATH_PAGE
        )
    if segments[0] in RESERVED:
        place.refuse(f"/api/{segments[0]} is the platform's own.", "Choose another path.", page=PATH_PAGE)
    return [PREFIX, *found[0], *(part for parts in found[1:] for part in ("/", *parts))]


def _checked_segment(place: Place, path: str, segment: str) -> list[Part]:
    rest = _PARAMETER.sub("", segment)
    if not segment or segment in (".", "..") or not _LITERAL.fullmatch(rest):
        _refuse_segment(place, path, segment)
    parts: list[Part] = []
    end = 0
    for found in _PARAMETER.finditer(segment):
        spans = bool(found.group(2))
        parts += [segment[end : found.start()], Hole(".+" if spans else "[^/]+", spans, found.group(1))]
        end = found.end()
    holes = [part for part in parts if isinstance(part, Hole)]
    if any(hole.spans for hole in holes) and (rest or len(holes) > 1):
        place.refuse(f"its path is {path!r}.", "A {parameter:path} stands alone between two slashes.", page=PATH_PAGE)
    if len(holes) > 1:
        place.refuse(
            f"its path is {path!r}, with two parameters between two slashes.",
            "Put a slash between them, or take one parameter and split it in the function.",
            page=PATH_PAGE,
        )
    return [part for part in (*parts, segment[end:]) if part]


def _rank(parts: Sequence[Part]) -> tuple[int, ...]:
    """What is said more exactly comes first, segment by segment: a literal, a parameter with a literal beside it (the
    longer literal first), a parameter, one that spans slashes, the end."""
    rank: list[int] = []
    for segment in segments_of(parts):
        literal = sum(len(part) for part in segment if isinstance(part, str))
        match [part for part in segment if isinstance(part, Hole)]:
            case []:
                rank += (0, 0)
            case [Hole(spans=True)]:
                rank += (3, 0)
            case _:
                rank += (1, -literal) if literal else (2, 0)
    return (*rank, 4)


def _refuse_segment(place: Place, path: str, segment: str) -> None:
    cure = "Write letters, digits and . _ ~ @ + - between single slashes, and parameters like {lead_id}."
    if converter := re.search(r"\{(\w+):(\w+)\}", segment):
        name, kind = converter.groups()
        cure = f"Write {{{name}}} and say its type in the signature, like {name}: {kind}. Only :path stands here."
    place.refuse(f"its path is {path!r}.", cure, page=PATH_PAGE)


def _checked_methods(place: Place, methods: Any) -> tuple[str, ...]:
    if methods is None:
        return ("GET",)
    each = [methods] if isinstance(methods, str) else methods
    if not isinstance(each, (list, tuple, set, frozenset)) or not each:
        place.refuse(f"methods is {methods!r}.", f"Write a list of {', '.join(METHODS)}.")
    for method in each:
        if not isinstance(method, str) or method.upper() not in METHODS:
            place.refuse(f"there is no method {method!r}.", f"There are {', '.join(METHODS)}.")
    return tuple(dict.fromkeys(method.upper() for method in each))


def checked_deadline(place: Place, deadline: Any) -> float:
    """Seconds; 30 unless said. Raises AppError."""
    if deadline is None:
        return DEADLINE
    number = isinstance(deadline, (int, float)) and not isinstance(deadline, bool)
    if not number or not 0 < deadline <= LONGEST_DEADLINE:
        place.refuse(f"deadline is {deadline!r}.", f"Write seconds, above 0 and up to {LONGEST_DEADLINE:g}.")
    return float(deadline)


def checked_auth(place: Place, auth: Any) -> str:
    """Who may call. Raises AppError."""
    if auth not in AUTHS:
        place.refuse(f"auth is {auth!r}.", 'Write "key" (callers need an API key) or "none" (everybody may call it).')
    return str(auth)


def _checked_examples(place: Place, examples: Any) -> tuple[Any, ...]:
    if examples is None:
        return ()
    if not isinstance(examples, (list, tuple)):
        place.refuse("examples is not a list.", 'Write a list of bodies, like [{"message": "Hi"}].')
    return tuple(examples)


def with_deadline(limits: Any, deadline: float | None) -> Any:
    """The limits, with the deadline as wall time where the author says the one and not the other."""
    if deadline is None or not (limits is None or isinstance(limits, Mapping)):
        return limits
    return {"wall_time": float(deadline), **(limits or {})}


def _must_be_alone(place: Place, spec: EndpointSpec) -> None:
    for other in registry.specs():
        if other.endpoint is None or other.name == place.handler or other.endpoint.kind != spec.kind:
            continue
        shared = set(spec.methods) & set(other.endpoint.methods)  # each has one way
        if shared and spec.paths == other.endpoint.paths:
            place.refuse(
                f"{' and '.join(sorted(shared))} of this path is taken by {other.name}, at {other.file}:{other.line}.",
                "Give one of them another path or other methods.",
                page=PATH_PAGE,
            )
