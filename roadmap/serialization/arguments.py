"""The arguments of calls, checked and converted by the types of the parameters."""

from __future__ import annotations

import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from roadmap.serialization.plain_data import user_path
from roadmap.serialization.ranges import allowed_by, check, field_types
from roadmap.text import suggest

P = ParamSpec("P")
T = TypeVar("T")
_INVALID = object()


def _plain_number(value: Any) -> float:
    return value if isinstance(value, int | float) else float(value)  # such as NumPy's


# By the type of an argument: what it must be, whether a value is that, and its conversion.
_ARGUMENTS: dict[Any, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = {
    bool: ("True or False", lambda value: isinstance(value, bool), bool),
    int: ("a whole number", lambda value: isinstance(value, numbers.Integral) and not isinstance(value, bool), int),
    float: ("a number", lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool), _plain_number),
    str: ("text", lambda value: isinstance(value, str), str),
    Path: ("a path", lambda value: isinstance(value, str | os.PathLike), user_path),
    types.NoneType: ("None", lambda value: value is None, lambda value: value),
    Mapping: ("a mapping", lambda value: isinstance(value, Mapping), lambda value: value),
    Callable: ("a function", callable, lambda value: value),
}


def argument(kind: Any, value: Any, name: str) -> Any:
    """An argument of a call as its annotated type: one of _ARGUMENTS, a Literal, a Sequence or Iterable, or a union.

    A sequence becomes a tuple; a single item counts as a sequence of one. Other types are not checked. Raises
    ValueError with the name, the requirement and the value.
    """
    converted = _as_argument(kind, value)
    if converted is _INVALID:
        words = list(dict.fromkeys(_argument_words(kind)))
        must_be = " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
        raise ValueError(f"{name} must be {must_be} (got {value!r})")
    if allowed := allowed_by(kind):
        check(converted, allowed, name)
    return converted


def _as_argument(kind: Any, value: Any) -> Any:
    """_INVALID if the value does not have the type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _as_argument(arguments[0], value)
    if origin in (typing.Union, types.UnionType):
        converted = (_as_argument(other, value) for other in arguments)
        return next((item for item in converted if item is not _INVALID), _INVALID)
    if origin is Literal:
        return value if any(type(value) is type(other) and value == other for other in arguments) else _INVALID
    if origin in (Sequence, Iterable):
        return _as_items(arguments[0], value)
    if (origin or kind) not in _ARGUMENTS:
        return value
    _, accepts, convert = _ARGUMENTS[origin or kind]
    return convert(value) if accepts(value) else _INVALID


def _as_items(kind: Any, value: Any) -> Any:
    single = _as_argument(kind, value)
    if single is not _INVALID:
        return (single,)
    if not isinstance(value, Iterable) or isinstance(value, str | Mapping):
        return _INVALID
    items = tuple(_as_argument(kind, item) for item in value)
    return _INVALID if any(item is _INVALID for item in items) else items


def _argument_words(kind: Any) -> Iterator[str]:
    """What an argument must be, in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        yield from _argument_words(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for other in arguments:
            if other is not str or Path not in arguments:  # a path may be text
                yield from _argument_words(other)
    elif origin is Literal:
        yield from map(str, arguments)
    elif origin in (Sequence, Iterable):
        yield f"a list, each {' or '.join(_argument_words(arguments[0]))}"
    else:
        yield _ARGUMENTS[origin or kind][0]


def checked(function: Callable[P, T], names: Callable[[], Mapping[str, Any]]) -> Callable[P, T]:
    """The function, with its arguments checked and converted by `argument`.

    `names` gives the types in its annotations that its module imports for type checkers only.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> T:
        kinds = _argument_types(function, names)
        further = [
            kind for name, kind in kinds.items() if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        ]
        valid = {*kinds, *(name for kind in further for name in field_types(typing.get_args(kind)[0]))}
        for name in keywords:
            if name not in valid:
                raise TypeError(f"{function.__name__}() has no argument {name!r}; {suggest(sorted(valid), name)}")
        bound = signature.bind(*arguments, **keywords)
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(argument(kinds[name], item, name) for item in value)
            elif kind is not inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = argument(kinds[name], value, name)
        return function(*bound.args, **bound.kwargs)

    return call


@cache
def _argument_types(function: Callable[..., Any], names: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    annotations = {name: kind for name, kind in function.__annotations__.items() if name != "return"}
    parameters: Any = types.SimpleNamespace(__annotations__=annotations)
    module = vars(inspect.getmodule(function))
    return typing.get_type_hints(parameters, module, dict(names()), include_extras=True)
