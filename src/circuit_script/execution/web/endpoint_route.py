"""One ``@endpoint`` as a FastAPI route: its signature without self and context, and its call in the main thread."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, NoReturn

from fastapi import FastAPI, Request, Response, params
from fastapi.encoders import jsonable_encoder
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope
from starlette.types import Send as StarletteSend

from circuit_script.execution.authoring.context import Context, current_context
from circuit_script.execution.authoring.endpoints import PROBLEM_TYPE, Route
from circuit_script.execution.authoring.place import Place
from circuit_script.execution.child.answering import Message, Send, must_be
from circuit_script.execution.child.running import alarmed
from circuit_script.execution.decisions import decision_of
from circuit_script.execution.outcome import HandlerSpec
from circuit_script.execution.session import session

_ANY_PROBLEM = {
    "description": "It did not work; nothing was written.",
    "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_END = object()
_DEEPEST = 100  # arrays and objects in each other; what turns answers into JSON calls itself for each
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Body(Request):
    """A request whose JSON is what RFC 8259 calls interoperable: what it holds can be said again."""

    async def json(self) -> Any:
        """The body. Raises JSONDecodeError, and HTTPException (400) for numbers, text or depth beyond JSON's."""
        body = await self.body()
        if body.count(b"[") + body.count(b"{") > _DEEPEST and _depth(body) > _DEEPEST:
            raise HTTPException(400, f"The body has more than {_DEEPEST} arrays and objects in each other.")
        found = json.loads(body, parse_constant=_no_number)
        if _SURROGATE.search(body):
            try:
                json.dumps(found, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise HTTPException(400, "The body has half of a surrogate pair, which is no text.") from None
        return found


def _depth(body: bytes) -> int:
    """How deep arrays and objects stand in each other, brackets in text aside."""
    depth = deepest = 0
    for each in _BRACKETS.findall(body):
        if each in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif each in b"]}":
            depth -= 1
    return deepest


_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def _no_number(name: str) -> NoReturn:
    raise HTTPException(400, f"The body has {name}, which is no number of JSON.")


class EndpointRoute(APIRoute):
    """A route that runs for its own handler only."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def read(request: Request) -> Response:
            return await answer(Body(request.scope, request.receive))

        return read

    async def handle(self, scope: Scope, receive: Receive, send: StarletteSend) -> None:
        must_be(self.endpoint.__qualname__)
        await super().handle(scope, receive, send)


class Held:
    """Holds the head of an answer back until its body begins: till then it may become another.

    A generator that fails says so here, in ``error``, and ends: FastAPI loses its last events when it raises.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self.begun = False
        self.error: BaseException | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            return
        if self.error is not None and not self.begun:
            return
        self.begun = True
        if self._head is not None:
            head, self._head = self._head, None
            await self._send(head)
        await self._send(message)


now: ContextVar[Held] = ContextVar("answer")


class Declaration:
    """One endpoint as its author wrote it, and as FastAPI takes it."""

    def __init__(self, spec: HandlerSpec, route: Route) -> None:
        assert spec.endpoint is not None
        self._spec, self._endpoint, self._route = spec, spec.endpoint, route
        self._place = Place(spec.name, spec.file, spec.line)
        self._streams = inspect.isasyncgenfunction(route.function) or inspect.isgeneratorfunction(route.function)
        self._context: str | None = None  # the parameter that takes the context

    def add_to(self, app: FastAPI, handler: Callable[[str], Callable[..., Any]]) -> None:
        """Make it a route. Raises AppError."""
        call = self._called(handler)
        call.__name__, call.__qualname__ = self._route.function.__name__, self._spec.name
        call.__module__, call.__doc__ = self._route.function.__module__, self._spec.doc or None
        call.__signature__ = self._signature()  # type: ignore[attr-defined]  # any function may have one
        one = len(self._endpoint.methods) == 1
        for method in self._endpoint.methods:
            named = self._spec.name.replace(".", "_")
            extra: dict[str, Any] = {"security": [{"key": []}]} if self._endpoint.auth == "key" else {}
            options: dict[str, Any] = {"response_class": EventSourceResponse} if self._streams else {}
            try:
                app.add_api_route(
                    self._route.path,
                    call,
                    methods=[method],
                    operation_id=named if one else f"{named}_{method.lower()}",
                    responses={"default": _ANY_PROBLEM},
                    openapi_extra=extra,
                    **options,
                )
            except Exception as error:
                said = str(error).split("Hint:")[0].split("\n")[0].strip()
                self._refuse(
                    f"FastAPI does not take its signature: {said}",
                    "Give each parameter, and what it returns, a type that pydantic knows; a response is fine, too.",
                )
            made = app.routes[-1]
            assert isinstance(made, APIRoute)
            made.path_regex = re.compile(self._route.pattern + r"\Z")  # Starlette's lets a line break follow
            self._take_examples(made)

    def _called(self, handler: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
        """The function behind an `async def`, so that FastAPI does not put plain code into a thread: there, neither
        alarm nor signal would end it."""
        name, given, function = self._spec.name, self._given, self._route.function

        async def stream(**values: Any) -> AsyncGenerator[Any, None]:
            async with aclosing(handler(name)(**given(values))) as items:
                async for item in items:
                    yield item

        async def plain_stream(**values: Any) -> AsyncGenerator[Any, None]:
            items = handler(name)(**given(values))
            while True:
                with alarmed(session()):
                    item = next(items, _END)
                if item is _END:
                    return
                yield item

        async def answer(**values: Any) -> Any:
            return _no_decision(await handler(name)(**given(values)))

        async def plain_answer(**values: Any) -> Any:
            with alarmed(session()):
                answer = handler(name)(**given(values))
            return _no_decision(await answer if inspect.isawaitable(answer) else answer)

        if self._streams:
            return _kept(stream if inspect.isasyncgenfunction(function) else plain_stream)
        return answer if inspect.iscoroutinefunction(function) else plain_answer

    def _given(self, values: dict[str, Any]) -> dict[str, Any]:
        return values if self._context is None else {**values, self._context: current_context()}

    def _signature(self) -> inspect.Signature:
        """What FastAPI is to see: all but self and the context, with annotations that are no longer text."""
        function = self._route.function
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        if "." in self._spec.name and not self._is_static():
            parameters = parameters[1:]
        taken = [self._parameter(each) for each in parameters]
        seen = [each for each in taken if each is not None]
        self._must_name(seen)
        returns = self._resolved("what it returns", signature.return_annotation)
        return inspect.Signature(seen, return_annotation=returns)

    def _is_static(self) -> bool:
        owner: Any = inspect.getmodule(self._route.function)
        for part in self._spec.name.split(".")[:-1]:
            owner = getattr(owner, part, None)
        return isinstance(inspect.getattr_static(owner, self._route.function.__name__, None), staticmethod)

    def _parameter(self, parameter: inspect.Parameter) -> inspect.Parameter | None:
        name, annotation = parameter.name, parameter.annotation
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            self._refuse(f"its parameter {parameter} is not filled by name.", "Name each parameter, without * or /.")
        if annotation is parameter.empty and name == "context":
            self._context = name
            return None
        if isinstance(annotation, str) and annotation.rpartition(".")[2] == Context.__name__ and name == "context":
            annotation = Context  # it may be imported for type checkers only
        annotation = self._resolved(f"the parameter {name!r}", annotation)
        if annotation is Context:
            self._context = name
            return None
        return parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=annotation)

    def _resolved(self, what: str, annotation: Any) -> Any:
        if not isinstance(annotation, str):
            return annotation
        try:
            return eval(annotation, self._route.function.__globals__)
        except Exception as error:
            self._refuse(
                f"the type of {what} is {annotation!r}, which cannot be found: {error}.",
                "Import it at the top of the module, not for type checkers only, and define it there.",
            )

    def _must_name(self, parameters: list[inspect.Parameter]) -> None:
        """See that each parameter of the path stands in the signature."""
        named = {alias for each in parameters for alias in (each.name, *_aliases(each))}
        for part in self._route.path.split("{")[1:]:
            name = part.partition("}")[0].partition(":")[0]
            if name not in named:
                self._refuse(f"its path names {{{name}}}, its signature does not.", f"Add the parameter {name}: str.")

    def _take_examples(self, route: APIRoute) -> None:
        """Put the examples into the document. Each must be what the endpoint takes, or the document would lie."""
        examples = [jsonable_encoder(example) for example in self._route.examples]
        if not examples:
            return
        field: Any = route.body_field
        if field is None or isinstance(field.field_info, params.Form):
            self._refuse("it has examples, but takes no JSON body.", "Leave them out, or give it a model.")
        for number, example in enumerate(examples, 1):
            _, errors = field.validate(example, {}, loc=("body",))
            if errors:
                self._refuse(f"example {number} is not what it takes: {listed(errors)}", "Mend the example.")
        shown = {f"example {number}": {"value": example} for number, example in enumerate(examples, 1)}
        body = {"content": {"application/json": {"examples": shown}}}
        route.openapi_extra = {**(route.openapi_extra or {}), "requestBody": body}

    def _refuse(self, wrong: str, cure: str) -> NoReturn:
        self._place.refuse(wrong, cure, page="handler-signature")


def _kept(stream: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., AsyncIterator[Any]]:
    """The stream, with what it raises kept beside its events."""

    async def kept(**values: Any) -> AsyncIterator[Any]:
        held = now.get()
        try:
            async with aclosing(stream(**values)) as items:
                async for item in items:
                    held.begun = True
                    yield item
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            held.error = error

    return kept


def _aliases(parameter: inspect.Parameter) -> list[str]:
    """Other names that ``Annotated[str, Path(alias="id")]`` or ``= Path(alias="id")`` give."""
    said = (parameter.default, *getattr(parameter.annotation, "__metadata__", ()))
    return [alias for each in said if isinstance(alias := getattr(each, "alias", None), str)]


def _no_decision(answer: Any) -> Any:
    """Retry and Cancel are for records: returned here, they would become a strange answer."""
    if (decision := decision_of(answer)) is not None:
        raise decision
    return answer


def listed(errors: Any) -> str:
    """Faults in one line: "body.message: Field required; query.limit: Input should be a valid integer"."""
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors)[:2000] + "."
