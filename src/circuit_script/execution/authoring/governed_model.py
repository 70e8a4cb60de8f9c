"""A model for agents of pydantic-ai. It speaks OpenAI's wire to the broker in the place of the network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import cache
from types import MappingProxyType
from typing import Any

import httpx2
import msgspec
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

from circuit_script.errors import CircuitError
from circuit_script.execution.authoring import tool_marks
from circuit_script.execution.authoring.models import taken
from circuit_script.execution.session import Session, current_record, session

__all__ = ["Agent", "GovernedModel", "model_of"]

ADDRESS = "http://broker.invalid/v1"  # RFC 6761: nobody has this name
NO_KEY = "the broker has the key"
DEFAULT = "default"  # the model of circuit.toml
EVENTS = "text/event-stream"

tool_marks.install()
_tools: ContextVar[Mapping[str, list[str]]] = ContextVar("tools", default=MappingProxyType({}))


class GovernedModel(WrapperModel):
    """``Agent(GovernedModel("gpt-4o-mini"))``: a model whose calls are made by the broker, counted and paid within the
    limits of the execution and the budgets. Without a name it is the model of ``[llm] model`` in circuit.toml.

    It may be made once, at the top of a module, and be used by any execution.
    """

    def __init__(self, name: str | None = None) -> None:
        client = httpx2.AsyncClient(transport=BrokerTransport(), timeout=None, trust_env=False)
        openai = AsyncOpenAI(base_url=ADDRESS, api_key=NO_KEY, http_client=client, max_retries=0)
        super().__init__(OpenAIChatModel(name or DEFAULT, provider=OpenAIProvider(openai_client=openai)))

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """One answer. Raises the broker's refusals as they are, not as errors of a connection."""
        try:
            with _tools_of(model_request_parameters):
                return await super().request(messages, model_settings, model_request_parameters)
        except ModelAPIError as error:
            raise _cause_of(error) from None

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncIterator[StreamedResponse]:
        """An answer that comes piece by piece. Raises as `request` does."""
        try:
            streamed = super().request_stream(messages, model_settings, model_request_parameters, run_context)
            async with AsyncExitStack() as stack:
                with _tools_of(model_request_parameters):  # only while it is asked: others may run in between
                    response = await stack.enter_async_context(streamed)
                yield response
        except ModelAPIError as error:
            raise _cause_of(error) from None


@cache
def model_of(name: str | None) -> GovernedModel:
    """One model for all calls that name it."""
    return GovernedModel(name)


class BrokerTransport(httpx2.AsyncBaseTransport):
    """Has each request made by the broker. It keeps no connection, so that any loop may use it."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises BudgetExceeded, RequestRefused, LimitExceeded."""
        asked = msgspec.json.decode(await request.aread())
        if asked.get("model") == DEFAULT:
            del asked["model"]
        running = session()
        arguments = {
            "request": asked,
            "record": current_record.get(),
            "agent": tool_marks.installed() and tool_marks.in_agent(),
            **_tools.get(),
        }
        answer = taken(await running.request("llm", arguments, dict[str, Any]), may_defer=running.run.request is None)
        if (number := answer.get("stream")) is not None:
            headers = {"content-type": EVENTS}
            return httpx2.Response(200, headers=headers, stream=Events(running, number), request=request)
        headers = {"content-type": "application/json"}
        return httpx2.Response(200, headers=headers, content=answer["body"], request=request)


class Events(httpx2.AsyncByteStream):
    """A stream of the broker as server-sent events."""

    def __init__(self, running: Session, number: int) -> None:
        self._session = running
        self._number: int | None = number

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._number is not None:
            asked = {"stream": self._number}
            answer = taken(await self._session.request("llm_next", asked, dict[str, Any]), may_defer=False)
            if answer["over"]:
                self._number = None
            for chunk in answer["chunks"]:
                yield b"data: " + chunk.replace(b"\n", b"\ndata: ") + b"\n\n"
            if answer["over"]:
                taken(answer["over"], may_defer=False)
        yield b"data: [DONE]\n\n"

    async def aclose(self) -> None:
        """Say that nobody wants the rest."""
        if (number := self._number) is not None and self._session.breach is None:
            self._number = None
            await self._session.request("llm_close", {"stream": number}, object)


@contextmanager
def _tools_of(parameters: ModelRequestParameters) -> Iterator[None]:
    """The broker is told which tools are forms for the answer of an agent, and which of them no agent runs."""
    outputs = [each.name for each in parameters.output_tools]
    external = [each.name for each in parameters.function_tools if each.kind == "external"]
    token = _tools.set({"outputs": outputs, "external": external})
    try:
        yield
    finally:
        _tools.reset(token)


def _cause_of(error: BaseException) -> BaseException:
    """The platform's own error within those that the libraries have put around it."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, CircuitError):
        found = found.__cause__
    return found or error
