from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from circuit_script.errors import AppError
from circuit_script.events.sources.gohighlevel import _KNOWN
from circuit_script.events.sources.source import BY_CONTACT
from circuit_script.execution.authoring.handlers import CircuitTrigger, Registry, trigger
from circuit_script.execution.authoring.place import OBJECTS, Options
from circuit_script.execution.outcome import EndpointSpec
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
    add(registry, object="Task", events=["afterUpdate", "afterDelete"], share_child=True)
    add(registry, batch_size=5)
    (spec,) = registry.specs()
    assert set(spec.routes) == {("Contact", "afterInsert"), ("Task", "afterUpdate"), ("Task", "afterDelete")}
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
    from circuit_script.execution.authoring.handlers import trigger

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


def checked(function: Any, *objects: str, object_: str = "Contact") -> AppError:
    registry = Registry()
    add(registry, function, object=object_)
    with pytest.raises(AppError) as refused:
        registry.check(objects)
    assert f"{__file__}:{inspect.getsourcelines(function)[1]}" in str(refused.value)
    return refused.value


def test_an_object_that_no_source_has_is_refused_with_the_nearest_name() -> None:
    error = checked(handler, object_="Contacts")
    assert error.page == "unknown-object"
    assert "Did you mean 'Contact'?" in error.cure
    assert 'objects = ["Contacts"]' in error.cure


def test_an_object_of_the_apps_own_is_known_when_it_is_declared() -> None:
    registry = Registry()
    add(registry, object="Shipment")
    registry.check(["Shipment"])
    assert checked(handler, "Shipment", object_="Shipmint").cure.startswith("Did you mean 'Shipment'?")


def test_every_object_that_the_sources_know_by_name_may_be_handled() -> None:
    assert set(_KNOWN.split("|")) | BY_CONTACT <= set(OBJECTS)


def takes_nothing() -> None: ...
def takes_two(context: Any, more: Any) -> None: ...
def takes_a_keyword(context: Any, *, more: Any) -> None: ...
def takes_a_default(context: Any, more: int = 1) -> None: ...
def takes_all(*arguments: Any, **named: Any) -> None: ...


class Odd(CircuitTrigger):
    def selfless(context: Any) -> None: ...  # type: ignore[misc]  # the mistake that is refused

    @staticmethod
    def free_of_context() -> None: ...

    def right(self, context: Any) -> None: ...


class Needy(CircuitTrigger):
    def __init__(self, what: str) -> None: ...

    def right(self, context: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "cure"),
    [
        (takes_nothing, "Declare it as `def takes_nothing(context)` or `async def takes_nothing(context)`."),
        (takes_two, "Declare it as `def takes_two(context)` or `async def takes_two(context)`."),
        (takes_a_keyword, "Declare it as `def takes_a_keyword(context)` or `async def takes_a_keyword(context)`."),
        (Odd.selfless, "Declare it as `def selfless(self, context)` or `async def selfless(self, context)`."),
        (Odd.free_of_context, "Declare it as `def free_of_context(context)` or `async def free_of_context(context)`."),
        (Needy.right, "Let its __init__ take nothing but self."),
    ],
)
def test_a_trigger_that_cannot_be_called_with_its_context_is_refused(function: Any, cure: str) -> None:
    error = checked(function)
    assert error.page == "handler-signature"
    assert error.cure == cure


@pytest.mark.parametrize("function", [takes_a_default, takes_all, Odd.right, Contacts.free])
def test_a_trigger_that_can_be_called_with_its_context_is_taken(function: Any) -> None:
    registry = Registry()
    add(registry, function)
    registry.check()


async def streams(context: Any) -> AsyncIterator[int]:
    yield 1


def yields(context: Any) -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("function", [streams, yields])
def test_a_generator_is_no_trigger(function: Any) -> None:
    assert "it has a `yield`, so that calling it runs nothing" in refusal(function)


@pytest.mark.parametrize(
    ("declared", "page"),
    [
        ({"object": ""}, "unknown-object"),
        ({"events": ["afterinsert"]}, "unknown-event"),
        ({"batch_size": 201}, "batch-size"),
        ({"limits": {"wall_tim": 3}}, "unknown-limit"),
    ],
)
def test_each_refusal_names_its_page(declared: dict[str, Any], page: str) -> None:
    with pytest.raises(AppError) as refused:
        add(Registry(), **declared)
    assert refused.value.page == page


@pytest.mark.parametrize("flag", ["share_child", "echoes"])
@pytest.mark.parametrize("value", ["no", 0, 1, []])
def test_a_promise_that_is_neither_true_nor_false_is_refused(flag: str, value: Any) -> None:
    assert f"{flag} is {value!r}." in refusal(**{flag: value})


def test_a_trigger_without_its_arguments_or_with_others_says_where_and_how_to_write_it() -> None:
    bare: Any = trigger
    with pytest.raises(AppError) as refused:
        bare(handler)
    assert refused.value.detail.startswith(f"{__file__}:")
    assert refused.value.detail.endswith("@trigger: it stands without its arguments.")
    assert '@trigger("Contact", ["afterInsert"])' in str(refused.value.cure)
    with pytest.raises(AppError, match="unexpected keyword argument 'batchsize'") as refused:
        bare("Contact", "afterInsert", batchsize=3)
    assert "Did you mean 'batch_size'?" in str(refused.value.cure)


def test_plain_functions_cannot_wait_together() -> None:
    async def waits(context: Any) -> None: ...

    async def streams() -> AsyncIterator[int]:
        yield 1

    said = refusal(concurrency=4)
    assert "plain `def` with concurrency=4" in said
    assert f"{__file__}:" in said
    add(Registry(), concurrency=1)
    registry = Registry()
    add(registry, waits, concurrency=4)
    registry.add_endpoint(streams, EndpointSpec(()), Options(concurrency=8))
    assert {spec.concurrency for spec in registry.specs()} == {4, 8}


def test_what_a_model_may_choose_is_named_and_names_are_known() -> None:
    registry = Registry()
    add(registry, allow_irreversible=("send_email", "hubspot.delete", "send_email"))
    registry.add_endpoint(Contacts.free, EndpointSpec(()), Options(allow_irreversible=["http.post"]))
    specs = {each.name: each.allow_irreversible for each in registry.specs()}
    assert specs == {"handler": ("send_email", "hubspot.delete"), "Contacts.free": ("http.post",)}
    assert "'send_mail', which is nothing that a model is kept from. Did you mean 'send_email'?" in refusal(
        allow_irreversible=("send_mail",)
    )
    assert "Did you mean 'hubspot.delete'?" in refusal(allow_irreversible=["hubspot.delet"])
    assert "allow_irreversible is 'send_email'" in refusal(allow_irreversible="send_email")
    assert "names 7" in refusal(allow_irreversible=(7,))
