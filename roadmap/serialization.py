"""Conversion of frozen dataclasses to plain data (the types of JSON and YAML) and back, with checks.

All external data becomes values here: the YAML of the study, `--set`, manifests, and the arguments of calls.
"""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, ParamSpec, TypeVar

import yaml

P = ParamSpec("P")
T = TypeVar("T")

ADDED_IN = "added_in"  # key in the metadata of a field
MAX_NUMBER = 1e15  # far above any number of a study; beyond it arithmetic is slow or inexact


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers within bounds: the values of a field `epochs: Annotated[int, Range(1)]` are at least 1.

    If other types are valid, too, annotate their union: `Annotated[int | None, Range(1)]`.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # exclusive minimum
    below: float | None = None  # exclusive maximum
    odd: bool = False
    other_than: float | None = None

    kinds: ClassVar[tuple[type, ...]] = (int, float)

    def __contains__(self, value: Any) -> bool:
        lowest = -MAX_NUMBER if self.minimum is None else self.minimum
        highest = MAX_NUMBER if self.maximum is None else self.maximum
        if not lowest <= value <= highest:  # also for NaN
            return False
        if (self.above is not None and value <= self.above) or (self.below is not None and value >= self.below):
            return False
        return not (self.odd and value % 2 == 0) and bool(value != self.other_than)

    def __str__(self) -> str:
        """The requirement in words: "between 1 and 10000", "above 0", "odd and at least 3"."""
        if self.minimum is not None and self.maximum is not None:
            parts = [f"between {self.minimum} and {self.maximum}"]
        else:
            bounds = {"at least": self.minimum, "above": self.above, "at most": self.maximum}
            bounds |= {"below": self.below, "other than": self.other_than}
            parts = [f"{words} {bound}" for words, bound in bounds.items() if bound is not None]
        return " and ".join(["odd"] * self.odd + parts)


@dataclasses.dataclass(frozen=True)
class Text:
    """Texts that a function accepts: `Annotated[str | None, Text("timm's notation", is_randaugment)]`."""

    description: str  # what a value must be
    accepts: Callable[[str], object]

    kinds: ClassVar[tuple[type, ...]] = (str,)

    def __contains__(self, value: Any) -> bool:
        return bool(self.accepts(value))

    def __str__(self) -> str:
        return self.description


def _is_time(text: str) -> bool:
    from datetime import datetime

    try:
        datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return False
    return True


PROBABILITY = Range(0, 1)
TIME = Text("a time in ISO 8601", _is_time)


class InvalidField(ValueError):
    """A value in a dataclass is not valid. The message starts with the key path of the field."""


def check(value: Any, allowed: Range | Text, name: str) -> None:
    """Raises InvalidField, "NAME must be between 1 and 10000 (got 0)", unless `value` is allowed.

    In a tuple each item must be allowed. Values of other types pass, such as "auto" or None beside numbers.
    """
    if isinstance(value, tuple | list):
        for i, item in enumerate(value):
            check(item, allowed, f"{name}[{i}]")
    elif isinstance(value, allowed.kinds) and value not in allowed:
        raise InvalidField(f"{name} must be {allowed} (got {value!r})")


def check_fields(value: Any) -> None:
    """Raises InvalidField for the first field of a dataclass whose value its annotation does not allow."""
    kind: Any = type(value)
    for name, allowed, takes_text in _checked_fields(kind):
        item = getattr(value, name)
        if isinstance(item, str) and not takes_text:  # a step may have set it
            raise InvalidField(f"{name} must be {allowed} (got {item!r})")
        check(item, allowed, name)


@cache
def _checked_fields(kind: Any) -> list[tuple[str, Range | Text, bool]]:
    """Each field with a requirement: its name, the requirement, and whether texts such as "auto" are valid."""
    annotated = [(name, hint, allowed) for name, hint in field_types(kind).items() if (allowed := allowed_by(hint))]
    return [(name, allowed, _takes_text(hint.__origin__)) for name, hint, allowed in annotated]


def _takes_text(kind: Any) -> bool:
    return kind is str or typing.get_origin(kind) is Literal or any(map(_takes_text, typing.get_args(kind)))


def allowed_by(kind: Any) -> Range | Text | None:
    """The requirement of an annotated type; None for other types."""
    metadata = kind.__metadata__ if typing.get_origin(kind) is Annotated else ()
    return next((item for item in metadata if isinstance(item, Range | Text)), None)


def range_of(kind: type, name: str) -> Range:
    """The range of a field of a dataclass, which must have one."""
    allowed = allowed_by(field_types(kind)[name])
    assert isinstance(allowed, Range), f"{kind.__name__}.{name} has no range"
    return allowed


def added_in(version: str) -> dict[str, str]:
    """The metadata of a field that was added to a dataclass after values of it were stored in files.

    `version` is the release that added it. The default of the field must mean the behaviour before it existed:
    `warm_restarts: int = field(default=0, metadata=added_in("0.2"))`.
    """
    return {ADDED_IN: version}


def user_path(written: str | os.PathLike[str]) -> Path:
    """A path as a user wrote it: ~ and ~NAME at its start are home folders, if there is such a user.

    A shell expands neither in --out=~/runs, nor in a YAML file.
    """
    return Path(os.path.expanduser(written))


def to_data(value: Any, *, hashed: bool = False) -> Any:
    """Plain data: dataclasses as dicts, tuples as lists and paths as text, recursively.

    If the data will be `hashed`, fields with `added_in` are left out if they have their default. So a hash from before
    the field existed stays valid.
    """
    if dataclasses.is_dataclass(value):
        names = hashed_fields(value) if hashed else [field.name for field in dataclasses.fields(value)]
        return {name: to_data(getattr(value, name), hashed=hashed) for name in names}
    if isinstance(value, Mapping):
        return {key: to_data(item, hashed=hashed) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_data(item, hashed=hashed) for item in value]
    return str(value) if isinstance(value, Path) else value


def hashed_fields(value: Any) -> list[str]:
    """The names of the fields of a dataclass, without fields with `added_in` that have their default."""
    names = []
    for field in dataclasses.fields(value):
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if ADDED_IN not in field.metadata or getattr(value, field.name) != default:
            names.append(field.name)
    return names


def from_data(kind: Any, data: Any, where: str = "") -> Any:
    """A value of the type `kind` from plain data.

    `kind` is a dataclass, int, float, str, bool, Path, a Literal, a union, tuple[...] or dict[str, ...], or one of
    these with a Range or Text in Annotated. Raises ValueError with the key path, which starts with `where`, the value
    and the requirement.
    """
    is_dataclass, origin, arguments = _anatomy(kind)
    if is_dataclass:
        return _dataclass_from(kind, data, where)
    if origin is Annotated:
        value = from_data(arguments[0], data, where)
        if allowed := allowed_by(kind):
            check(value, allowed, where)
        return value
    if origin in (typing.Union, types.UnionType):
        return _union_from(arguments, data, where)
    if origin is Literal:
        if data not in arguments or isinstance(data, bool) not in {isinstance(value, bool) for value in arguments}:
            raise ValueError(f"{where}: {data!r} is not valid; {suggest(arguments, data)}")
        return data
    if origin is tuple:
        return _tuple_from(arguments, data, where)
    if origin is dict:
        _expect(isinstance(data, Mapping), "a mapping", data, where)
        return {str(key): from_data(arguments[1], item, _join(where, str(key))) for key, item in data.items()}
    if kind is Any:
        return data
    if kind is Path:
        _expect(isinstance(data, str) and data != "", "a path", data, where)
        return user_path(data)
    if kind is float:
        is_number = isinstance(data, int | float) and not isinstance(data, bool)
        _expect(
            is_number and abs(data) < MAX_NUMBER, f"a finite number below {MAX_NUMBER:.0e}", data, where
        )  # False for NaN
        return float(data)
    if kind is int and isinstance(data, float) and data.is_integer():  # such as 1e1
        data = int(data)
    if kind is int and isinstance(data, int):
        _expect(abs(data) < MAX_NUMBER, f"a whole number below {MAX_NUMBER:.0e}", data, where)
    names = {int: "a whole number", str: "text", bool: "true or false", types.NoneType: "null"}
    if kind not in names:
        raise ValueError(f"{where}: a value of type {_describe(kind)} can't be written; use numbers, text or tuples")
    _expect(isinstance(data, kind) and (kind is bool or not isinstance(data, bool)), names[kind], data, where)
    return data


def changed(value: Any, changes: Mapping[str, Any], where: str) -> Any:
    """A dataclass with fields replaced from plain data. Raises ValueError with the key path for invalid changes."""
    if not changes:
        return value
    data = to_data(value)
    check_keys(changes, data, where)
    return from_data(type(value), {**data, **changes}, where)


class YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as users read it. The loaders of yaml follow YAML 1.1: 030 is 24, 1:30 is 90, and 4e-3 is text.

    Here 4e-3 is a number. The first two are errors, and so is a repeated key, of which yaml takes the last value.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key.value, str)]
        for i, key in enumerate(keys):
            if key.value in [other.value for other in keys[:i]]:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Raises ConstructorError for a number that YAML 1.1 reads in base 8 or 60."""
        text = node.value
        is_float = node.tag.endswith(":float")
        if ":" in text:
            value = self.construct_yaml_float(node) if is_float else self.construct_yaml_int(node)
            reason = f"is {value} to some readers of YAML; write {value}"
        elif not is_float and re.fullmatch("[-+]?0[0-9_]+", text):
            reason = f"has a leading zero, octal to some readers of YAML; write {int(text.replace('_', ''))}"
        else:
            number: int | float = self.construct_yaml_float(node) if is_float else self.construct_yaml_int(node)
            return number
        problem = f"{text} {reason}, or '{text}' in quotes for text"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


for _kind in ("int", "float"):
    YamlLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", YamlLoader.construct_number)
_SIGN_AND_DIGITS = list("-+.0123456789")
YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$"), _SIGN_AND_DIGITS
)
YamlLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?0[0-9_]+$"), _SIGN_AND_DIGITS)  # as 08


def parse_value(text: str, where: str) -> Any:
    """A value from text in YAML, such as on the command line. Raises ValueError if it is not valid YAML."""
    try:
        return yaml.load(text, YamlLoader)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(f"{where}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ValueError(f"{where}: {text!r} is not a value in YAML") from None


def suggest(valid: Iterable[object], given: object) -> str:
    """The end of an error message: the valid name that is most similar to `given`, and all valid names."""
    import difflib  # imported late to keep `roadmap list` fast

    names = [str(name) for name in valid]
    near = difflib.get_close_matches(str(given), names, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + "valid: " + ", ".join(names)


def check_keys(data: Any, valid: Iterable[str], where: str) -> None:
    """Raises ValueError unless `data` is a mapping with only keys in `valid`."""
    _expect(isinstance(data, Mapping), "a mapping", data, where)
    valid = list(valid)
    for key in data:
        if key not in valid:
            raise ValueError(f"{_join(where, str(key))}: unknown key; {suggest(valid, key)}")


@cache  # reading thousands of manifests uses few types
def _anatomy(kind: Any) -> tuple[bool, Any, tuple[Any, ...]]:
    return dataclasses.is_dataclass(kind), typing.get_origin(kind), typing.get_args(kind)


@cache
def field_types(kind: type) -> dict[str, Any]:
    """The type of each field, or of each parameter of a function, with its annotations."""
    return typing.get_type_hints(kind, include_extras=True)


@cache
def _unchecked_field_types(kind: type) -> dict[str, Any]:
    """The types without ranges, which the dataclass checks itself."""
    hints = field_types(kind).items()
    return {name: hint.__origin__ if typing.get_origin(hint) is Annotated else hint for name, hint in hints}


def _dataclass_from(kind: Any, data: Any, where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    check_keys(data, fields, where)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ValueError(f"{_join(where, name)}: missing")
    hints = _unchecked_field_types(kind)
    values = {name: from_data(hints[name], item, _join(where, name)) for name, item in data.items()}
    try:
        return kind(**values)
    except InvalidField as error:
        raise InvalidField(_join(where, str(error))) from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from None


def _union_from(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    """The value of the first type that accepts the data. Else raises the error of the type that fits best."""
    if data is None and types.NoneType in kinds:
        return None
    mappings = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    if len(mappings) == 1 and isinstance(data, Mapping):  # so that the error names the part that is invalid
        return from_data(mappings[0], data, where)
    errors = []
    for kind in kinds:
        try:
            return from_data(kind, data, where)
        except ValueError as error:
            errors.append((_has_shape(kind, data), str(error)))
    shaped = [message for has_shape, message in errors if has_shape]
    if len(shaped) == 1:
        raise ValueError(shaped[0])
    raise ValueError(f"{where}: {data!r} is not valid; expected {' or '.join(_describe(kind) for kind in kinds)}")


def _has_shape(kind: Any, data: Any) -> bool:
    if dataclasses.is_dataclass(kind):  # the dataclass that has one of these fields
        return isinstance(data, Mapping) and not data.keys().isdisjoint(
            field.name for field in dataclasses.fields(kind)
        )
    return typing.get_origin(kind) is tuple and isinstance(data, list | tuple)


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(repr(argument) for argument in typing.get_args(kind))
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false", types.NoneType: "null"}
    names[Path] = "a path"
    return str(names.get(kind) or getattr(kind, "__name__", kind))


def _tuple_from(kinds: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    _expect(isinstance(data, list | tuple), "a list", data, where)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(data)
    _expect(len(kinds) == len(data), f"a list of {len(kinds)}", data, where)
    return tuple(from_data(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True)))


def _expect(holds: bool, expected: str, data: Any, where: str) -> None:
    if not holds:
        raise ValueError(f"{where}: {data!r} is not {expected}")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


@dataclasses.dataclass(frozen=True)
class Difference:
    """One value that differs."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {show(self.before)} -> {show(self.after)}"


def differences(before: Any, after: Any, path: str = "") -> list[Difference]:
    """The differences between two values, as small as possible."""
    before, after = to_data(before), to_data(after)
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        pairs = [(_join(path, key), before[key], after[key]) for key in before]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and _nested(before):
        pairs = [(f"{path}[{i}]", old, new) for i, (old, new) in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [Difference(path, before, after)]
    return [difference for where, old, new in pairs for difference in differences(old, new, where)]


def show(value: Any) -> str:
    """Plain data as short text, similar to YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def three_digits(value: float) -> str:
    """A measured number as text: 7.31, 68.9, 1234."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _nested(items: list[Any]) -> bool:
    return any(isinstance(item, dict | list) for item in items)


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
