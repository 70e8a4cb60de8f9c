"""How a class becomes the schema of an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict

from circuit_script.schemas.registered import register

T = TypeVar("T", bound="type[ObjectSchema]")

# What vendors send where they have nothing: an empty text for a number.
Number = Annotated[int | float | None, BeforeValidator(lambda value: None if value == "" else value)]
Moment = str | int | float | None  # as the vendor has it: ISO 8601, or seconds or milliseconds since 1970


class ObjectSchema(BaseModel):
    """Fields of an object, and their types. A class below it is registered by its keyword:

        class Contact(ContactSchema, object="Contact"):
            budget: int | None

    or by `schema`. Types are meant strictly: "500" is no number. Fields that are not named may be anything, and one
    that may be None may be missing. Records stay as they came: nothing is converted.
    """

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    id: str | None = None

    def __init_subclass__(cls, *, object: str | None = None, **more: Any) -> None:
        """What comes of the keyword comes below, when the fields are known."""
        super().__init_subclass__(**more)

    @classmethod
    def __pydantic_init_subclass__(cls, *, object: str | None = None, **more: Any) -> None:
        super().__pydantic_init_subclass__(**more)
        nullable = [each for each in cls.model_fields.values() if each.is_required() and _takes_none(each.annotation)]
        for each in nullable:
            each.default = None
        if nullable:
            cls.model_rebuild(force=True)
        if object is not None:
            register(object, cls)


def schema(object_: str) -> Callable[[T], T]:
    """Make a class the schema of an object:

    @schema("Contact")
    class Lead(ContactSchema):
        budget: int | None
    """

    def registered(found: T) -> T:
        given: Any = found
        if not isinstance(given, type) or not issubclass(given, ObjectSchema):
            raise TypeError("a schema is a class below one of circuit_script's, like ContactSchema")
        register(object_, found)
        return found

    return registered


def _takes_none(annotation: Any) -> bool:
    return annotation is None or annotation is type(None) or any(map(_takes_none, get_args(annotation)))
