"""What the broker tells of each request in the execution's trace: what is asked, never what it is about.

Bodies, rows, arguments and answers stay out; of an address its query and its user stay out, too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from circuit_script.errors import IrreversibleRefused
from circuit_script.execution.broker.callouts.fetch import MAX_LINE
from circuit_script.governor import LimitExceeded
from circuit_script.telemetry.spans import CANCELLED, CLIENT, ERROR, INTERNAL, REFUSED, Mark, Recorder, current

MAX_NAME = 120  # characters of what a child says
MAX_URL = 2_000  # whoever stores it cuts it, once what is secret is out of it
MAX_WORDS = 2_000
MAX_SOQL = 20_000
_FROM = re.compile(r"\bfrom\s+(\w+)", re.IGNORECASE)
_ASKED = re.compile(r"://[^\s?#]*[?#]")  # an address, up to its query or fragment

Asked = Mapping[str, Any]
Serve = Callable[[str, dict[str, Any]], Awaitable[Any]]


async def traced(recorder: Recorder, serve: Serve, verb: str, arguments: dict[str, Any]) -> Any:
    """Serve one request of a child, and record it as a span. Raises what ``serve`` raises."""
    known = _SPANS.get(verb)
    if known is None:
        return await serve(verb, arguments)
    name, kind, describe, conclude = known
    mark = recorder.begin(name, kind, _described(describe, arguments))
    token = current.set(mark)
    try:
        answer = await serve(verb, arguments)
        if conclude is not None:
            conclude(mark, answer)
        return answer
    except LimitExceeded as breach:
        _failed(mark, f"limit {breach.limit}", str(breach), whole=False)
        raise
    except IrreversibleRefused as refused:
        _failed(mark, REFUSED, refused.detail, whole=False)
        raise
    except Exception as error:
        _failed(mark, ERROR, str(error))
        raise
    except BaseException:
        mark.status = CANCELLED
        raise
    finally:
        mark.end()
        current.reset(token)


def _described(describe: Describe, arguments: dict[str, Any]) -> dict[str, Any]:
    """What is asked, as far as it makes sense: whether it does is for who serves it to say."""
    try:
        return describe(arguments)
    except Exception:
        return {}


def _failed(mark: Mark, status: str, said: str, *, whole: bool = True) -> None:
    mark.status = status
    mark.attributes["error"] = (_without_query(said, whole) if "url" in mark.attributes else said)[:MAX_WORDS]


def _without_query(said: str, whole: bool) -> str:
    """Why a request failed: first stands its address, whose query may hold anything, and then, if this is the
    ``whole`` of it, the reason."""
    if (address := _ASKED.search(said)) is None:
        return said
    why = said.rpartition(": ")[2] if whole and len(said) < MAX_LINE else ""  # else it may be cut within the query
    return f"{said[: address.end() - 1]}…" + (f": {why}" if why and "://" not in why else "")


def address(said: Any) -> str:
    """An address without user, query and fragment."""
    url = said[: 4 * MAX_URL] if isinstance(said, str) else _name(said)
    cut = min((place for place in (url.find("?"), url.find("#")) if place >= 0), default=len(url))
    scheme, sign, rest = url[:cut].partition("://")
    if not sign:
        return scheme.rpartition("@")[2][:MAX_URL]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"[:MAX_URL]


def _name(said: Any) -> str:
    """What a child says; of what is no name only what it is: to write it out may take long."""
    return str(said)[:MAX_NAME] if said is None or isinstance(said, str | int | float) else type(said).__name__


def _size(said: Any) -> int:
    return len(said) if isinstance(said, (list, tuple, dict)) else 0


def _dml(asked: Asked) -> dict[str, Any]:
    return {"object": _name(asked.get("object")), "op": _name(asked.get("op")), "rows": _size(asked.get("rows"))}


def _query(asked: Asked) -> dict[str, Any]:
    """Of a query its object and its fields. SOQL has values in it: of that only the object is told."""
    if (text := asked.get("soql")) is not None:
        found = _FROM.search(text) if isinstance(text, str) and len(text) <= MAX_SOQL else None
        return {"object": _name(found[1])} if found else {}
    if asked.get("object") is None:
        return {}  # the next page
    where = asked.get("where")
    fields = ", ".join(dict.fromkeys(map(str, where if isinstance(where, dict) else _fields(where))))
    return {"object": _name(asked.get("object"))} | (
        {"by": _name(fields)} if fields and len(fields) <= 4 * MAX_NAME else {}
    )


def _fields(where: Any, depth: int = 40) -> Iterator[str]:
    """The names of the fields in the conditions of a query."""
    match where:
        case [str(), str(name), _]:
            yield name
        case ["all" | "any" | "not", [*parts]] if depth:
            for each in parts if where[0] != "not" else [parts]:
                yield from _fields(each, depth - 1)


def _get(asked: Asked) -> dict[str, Any]:
    return {"object": _name(asked.get("object")), "ids": _size(asked.get("ids"))}


def _send(asked: Asked) -> dict[str, Any]:
    said = {name: _name(asked.get(name)) for name in ("connector", "operation")}
    return {**said, "target": _name(asked.get("to"))}


def _enqueue(asked: Asked) -> dict[str, Any]:
    return {"job": _name(asked.get("job"))}


def _request(asked: Asked) -> dict[str, Any]:
    return {"method": _name(asked.get("method")), "url": address(asked.get("url"))}


def _connect(asked: Asked) -> dict[str, Any]:
    return {"host": _name(asked.get("host")), "port": _name(asked.get("port"))}


def _nothing(asked: Asked) -> dict[str, Any]:
    return {}


def _rows(mark: Mark, answer: Any) -> None:
    if isinstance(answer, dict) and "refused" in answer:
        _failed(mark, REFUSED, str(answer["refused"][0]).partition("\n")[0])
    else:
        mark.attributes["rows"] = _size(answer["rows"] if isinstance(answer, dict) else answer)


def _answered(mark: Mark, answer: Any) -> None:
    """Of a callout, or of a request that a library makes by itself: how the host, or the platform, answered."""
    if not isinstance(answer, dict):
        return
    if "status" in answer:
        status = mark.attributes["status"] = answer["status"]
        if status >= 400:
            mark.status = ERROR
    elif "failed" in answer:
        _failed(mark, ERROR, str(answer["failed"]))
    elif "refused" in answer:
        _failed(mark, REFUSED, str(answer["refused"][0]))


def _model(mark: Mark, answer: Any) -> None:
    if isinstance(answer, dict) and "refused" in answer:
        _failed(mark, REFUSED, str(answer["refused"][0]))
    elif isinstance(answer, dict) and "full" in answer:
        _failed(mark, REFUSED, str(answer["full"]["said"]))
    elif isinstance(answer, dict) and "stream" in answer:
        mark.attributes["streamed"] = True


Describe = Callable[[Asked], dict[str, Any]]
Conclude = Callable[[Mark, Any], None]
# The rest of a model's streamed answer is no span of its own.
_SPANS: Mapping[str, tuple[str, str, Describe, Conclude | None]] = {
    "dml": ("write", INTERNAL, _dml, None),
    "query": ("query", CLIENT, _query, _rows),
    "page": ("query", CLIENT, _query, _rows),
    "count": ("count", CLIENT, _query, None),
    "get": ("get", CLIENT, _get, None),
    "send": ("hold effect", INTERNAL, _send, None),
    "enqueue": ("enqueue", INTERNAL, _enqueue, None),
    "checkpoint": ("checkpoint", INTERNAL, _nothing, None),
    "http": ("callout", CLIENT, _request, _answered),
    "request": ("direct request", CLIENT, _request, _answered),
    "connect": ("connect", CLIENT, _connect, _answered),
    "llm": ("model", CLIENT, _nothing, _model),
}
