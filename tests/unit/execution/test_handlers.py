from __future__ import annotations

import inspect
from typing import Any

import pytest

from circuit_script.errors import AppError
from circuit_script.execution.handlers import CircuitTrigger, Options, Registry
from circuit_script.governor import Limits


def handler(context: Any) -> str:
    """Say it.

    At length.
    """
    return "function"


class Contacts(CircuitTrigger):
    def score(self, context: Any) -> str:
        return "method"

    @staticmethod
    def free(context: Any) -> str:
        return "static"


def add(registry: Registry, function: Any = handler, events: Any = ("afterInsert",), **options: Any) -> None:
    registry.add_trigger(function, options.pop("object", "Contact"), events, Options(**options))


def refusal(function: Any = handler, **declared: Any) -> str:
    with pytest.raises(AppError) as refused:
        add(Registry(), function, **declared)
    assert refused.value.cure
    return str(refused.value)


def test_a_function_becomes_a_handler_of_its_own_name() -> None:
    registry = Registry(Limits(wall_time=3))
    add(registry)
    (spec,) = registry.specs()
    assert (spec.name, spec.routes, spec.batch_size) == ("handler", (("Contact", "afterInsert"),), 200)
    assert spec.doc == "Say it.\n\nAt length."
    assert spec.limits == Limits(wall_time=3)
    assert (spec.file, spec.line) == (__file__, inspect.getsourcelines(handler)[1])
    assert registry.callable("handler")(None) == "function"


def test_a_method_is_called_on_an_instance_of_its_class() -> None:
    registry = Registry()
    add(registry, Contacts.score)
    add(registry, Contacts.free)
    registry.check()
    assert [spec.name for spec in registry.specs()] == ["Contacts.free", "Contacts.score"]
    assert registry.callable("Contacts.score")(None) == "method"
    assert registry.callable("Contacts.free")(None) == "static"


def test_decorators_stack_into_one_handler_with_all_routes_and_options() -> None:
    registry = Registry()
    add(registry, batch_size=5)
    add(registry, object="Lead", events=["afterUpdate", "afterDelete"], share_child=True)
    add(registry, batch_size=5)
    (spec,) = registry.specs()
    assert set(spec.routes) == {("Contact", "afterInsert"), ("Lead", "afterUpdate"), ("Lead", "afterDelete")}
    assert (spec.batch_size, spec.share_child, spec.echoes) == (5, True, False)


def test_decorators_that_contradict_each_other_are_refused() -> None:
    registry = Registry()
    add(registry, batch_size=5)
    with pytest.raises(AppError, match="disagree about batch_size"):
        add(registry, batch_size=6)


def test_limits_may_be_replaced_one_by_one_or_all() -> None:
    registry = Registry(Limits(callouts=7))
    add(registry, limits={"wall_time": 2})
    assert registry.specs()[0].limits == Limits(callouts=7, wall_time=2)
    other = Registry(Limits(callouts=7))
    add(other, limits=Limits(wall_time=2))
    assert other.specs()[0].limits == Limits(wall_time=2)


def test_two_handlers_of_one_name_are_refused_with_both_places() -> None:
    registry = Registry()
    add(registry)

    def twin() -> Any:
        def handler(context: Any) -> None: ...

        return handler

    with pytest.raises(AppError) as refused:
        add(registry, twin())
    assert str(refused.value).count(__file__) == 2


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"events": ["afterinsert"]}, "Did you mean 'afterInsert'?"),
        ({"events": ["sometimes"]}, "There are afterInsert, afterUpdate"),
        ({"events": []}, "it names no event"),
        ({"events": 7}, "it names no event"),
        ({"object": ""}, "the object is ''"),
        ({"batch_size": 0}, "a whole number from 1 to 200"),
        ({"batch_size": 201}, "batch_size is 201"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": "7"}, "batch_size is '7'"),
        ({"limits": {"wall_tim": 3}}, "Did you mean 'wall_time'?"),
        ({"limits": {"wall_time": -3}}, "must be a positive number"),
        ({"limits": 3}, "limits is 3"),
    ],
)
def test_a_wrong_declaration_is_refused_with_file_line_and_cure(declared: dict[str, Any], said: str) -> None:
    message = refusal(**declared)
    assert said in message
    assert f"{__file__}:{inspect.getsourcelines(handler)[1]}" in message


@pytest.mark.parametrize("thing", [Contacts, staticmethod(handler), lambda context: None, 7])
def test_what_is_not_a_function_is_refused(thing: Any) -> None:
    from circuit_script.execution.handlers import trigger

    with pytest.raises(AppError) as refused:
        trigger("Contact", "afterInsert")(thing)
    assert __file__ in str(refused.value)
    assert "directly above a `def`" in refused.value.cure


def test_a_method_whose_class_cannot_be_found_is_refused_before_anything_runs() -> None:
    class Hidden:
        def score(self, context: Any) -> None: ...

    registry = Registry()
    add(registry, Hidden.score)
    with pytest.raises(AppError, match="hidden in a function"):
        registry.check()
