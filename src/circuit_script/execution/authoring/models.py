"""``llm`` and ``GovernedModel``: models as handlers call them. Every call is made by the broker, which has the key."""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType
from typing import Any, TypeVar, overload

from circuit_script.errors import BudgetExceeded, RequestRefused
from circuit_script.execution.decisions import Decision
from circuit_script.execution.outcome import LONGEST_RETRY

T = TypeVar("T")

MISSING = "Model calls need pydantic-ai: pip install 'circuit-script[llm]'"


class BudgetDeferred(BudgetExceeded, Decision):
    """The money for model calls is used up; the records are tried again when there is some.

    Nobody has to catch it: left alone, it puts off the record of ``context.record`` around it, or the whole batch.
    """

    def __init__(self, said: str, after: float, **full: Any) -> None:
        super().__init__(said, **full)
        self.after = min(max(0.0, after), float(LONGEST_RETRY))
        self.reason = f"there is no money for a model call: {said}"


class ModelRefused(RequestRefused):
    """The model call was refused."""

    page = "llm-provider"


def taken(answer: dict[str, Any], *, may_defer: bool) -> dict[str, Any]:
    """The broker's answer about a model call. Raises BudgetExceeded and RequestRefused; where a call ``may_defer``, one
    that is put off raises what puts off its record."""
    if (refused := answer.get("refused")) is not None:
        detail, cure, page = refused
        raise ModelRefused(detail, cure=cure, page=page)
    full = answer.get("full")
    if full is None:
        return answer
    said, after = full.pop("said"), full.pop("after")
    if after is not None and may_defer:
        raise BudgetDeferred(said, after, **full)
    raise BudgetExceeded(said, **full)


class LLM:
    """Answers of models, for a prompt each."""

    @overload
    async def complete(
        self,
        prompt: str,
        *,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> str: ...

    @overload
    async def complete(
        self,
        prompt: str,
        output_type: type[T],
        *,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> T: ...

    async def complete(
        self,
        prompt: str,
        output_type: Any = str,
        *,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> Any:
        """The model's answer to ``prompt``: text, or a validated ``output_type`` (a pydantic model, a dataclass, a list
        of them, a number).

        ``model`` is circuit.toml's where none is named; ``max_tokens`` bounds the answer. Raises BudgetExceeded when
        there is no money for it, RequestRefused when nobody answers, and pydantic-ai's UnexpectedModelBehavior when
        the answer is not what was asked for, also not after it was told so.
        """
        governed = _governed_model()
        settings = {"max_tokens": max_tokens, "temperature": temperature}
        agent = governed.Agent(
            governed.model_of(model),
            output_type=output_type,
            system_prompt=system or (),
            model_settings={name: value for name, value in settings.items() if value is not None},
        )
        return (await agent.run(prompt)).output


def _governed_model() -> ModuleType:
    try:
        from circuit_script.execution.authoring import governed_model
    except ImportError as error:
        raise ImportError(f"{MISSING} ({error})") from error
    return governed_model


llm: LLM


def __getattr__(name: str) -> Any:
    """The libraries are loaded where an app first names what needs them, which is before its processes are forked:
    each of these would take seconds for it, and memory."""
    if name == "GovernedModel":
        return _governed_model().GovernedModel
    if name != "llm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with suppress(ImportError):  # it is told when it is used
        _governed_model()
    found = globals()["llm"] = LLM()
    return found
