"""Frozen dataclasses to plain data (what JSON and YAML hold) and back, checked on the way.

The one place where data from outside becomes values: the study's YAML, `--set`, and manifests.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal

import yaml

ADDED_IN = "added_in"  # key of a field's metadata
MAX_NUMBER = 1e15  # no number of a study is near; beyond it arithmetic gets slow, or floats run out


def added_in(version: str) -> dict[str, str]:
    """The metadata of a dataclass field that was added once values of the class were stored.

    `version` is the release that added it. The field has a default that means what was done before it existed:
    `warm_restarts: int = field(default=0, metadata=added_in("0.2"))`.
    """
    return {ADDED_IN: version}


def to_data(value: Any, *, hashed: bool = False) -> Any:
    """Dataclasses as dicts and tuples as lists, all the way down.

    The form to be `hashed` leaves out what `added_in` marks where it has its default, so that a hash from before the
    field existed stays.
    """
    if dataclasses.is_dataclass(value):
        names = hashed_fields(value) if hashed else [field.name for field in dataclasses.fields(value)]
        return {name: to_data(getattr(value, name), hashed=hashed) for name in names}
    if isinstance(value, Mapping):
        return {key: to_data(item, hashed=hashed) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_data(item, hashed=hashed) for item in value]
    return value


def hashed_fields(value: Any) -> list[str]:
    """The names of a dataclass's fields, without those that `added_in` marks and that have their default."""
    names = []
    for field in dataclasses.fields(value):
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if ADDED_IN not in field.metadata or getattr(value, field.name) != default:
            names.append(field.name)
    return names


def from_data(kind: Any, data: Any, where: str = "") -> Any:
    """A value of the type `kind` from plain data.

    `kind` is a dataclass, int, float, str, bool, a Literal, a union, tuple[...] or dict[str, ...].
    Raises ValueError with the key path below `where`, what stands there and what is valid.
    """
    is_dataclass, origin, arguments = _anatomy(kind)
    if is_dataclass:
        return _dataclass_from(kind, data, where)
    if origin in (typing.Union, types.UnionType):
        return _union_from(arguments, data, where)
    if origin is Literal:
        if data not in arguments or isinstance(data, bool) not in {isinstance(choice, bool) for choice in arguments}:
            raise ValueError(f"{where}: {data!r} is not valid; {suggest(arguments, data)}")
        return data
    if origin is tuple:
        return _tuple_from(arguments, data, where)
    if origin is dict:
        _expect(isinstance(data, Mapping), "a mapping", data, where)
        return {str(key): from_data(arguments[1], item, _join(where, str(key))) for key, item in data.items()}
    if kind is Any:
        return data
    if kind is float:
        is_number = isinstance(data, int | float) and not isinstance(data, bool)
        _expect(
            is_number and abs(data) < MAX_NUMBER, f"a finite number below {MAX_NUMBER:.0e}", data, where
        )  # NaN is not less either
        return float(data)
    if kind is int and isinstance(data, float) and data.is_integer():  # 1e1 is a whole number too
        data = int(data)
    if kind is int and isinstance(data, int):
        _expect(abs(data) < MAX_NUMBER, f"a whole number below {MAX_NUMBER:.0e}", data, where)
    names = {int: "a whole number", str: "a text", bool: "true or false", types.NoneType: "null"}
    if kind not in names:
        raise ValueError(f"{where}: a value of type {_describe(kind)} can't be written; numbers, texts and tuples can")
    _expect(isinstance(data, kind) and (kind is bool or not isinstance(data, bool)), names[kind], data, where)
    return data


def changed(value: Any, changes: Mapping[str, Any], where: str) -> Any:
    """A dataclass with fields replaced from plain data, checked. Raises ValueError with the place."""
    if not changes:
        return value
    data = to_data(value)
    check_keys(changes, data, where)
    return from_data(type(value), {**data, **changes}, where)


def parse_value(text: str, where: str) -> Any:
    """A value as it is written in YAML, on the command line. Raises ValueError where it is not valid YAML."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{where}: {text!r} is not a value in YAML") from None
    try:  # YAML 1.1 takes 1e-3 for a text
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def suggest(valid: Iterable[object], given: object) -> str:
    """What may stand here instead of `given`, the nearest first: for error messages."""
    import difflib  # here, as what answers at once does without

    names = [str(name) for name in valid]
    near = difflib.get_close_matches(str(given), names, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + "valid: " + ", ".join(names)


def check_keys(data: Any, valid: Iterable[str], where: str) -> None:
    """Raises ValueError unless `data` is a mapping whose keys are all among `valid`."""
    _expect(isinstance(data, Mapping), "a mapping", data, where)
    valid = list(valid)
    for key in data:
        if key not in valid:
            raise ValueError(f"{_join(where, str(key))}: unknown key; {suggest(valid, key)}")


@cache  # thousands of manifests have the same few types
def _anatomy(kind: Any) -> tuple[bool, Any, tuple[Any, ...]]:
    return dataclasses.is_dataclass(kind), typing.get_origin(kind), typing.get_args(kind)


@cache
def field_types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _dataclass_from(kind: Any, data: Any, where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    check_keys(data, fields, where)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ValueError(f"{_join(where, name)}: missing")
    hints = field_types(kind)
    values = {name: from_data(hints[name], item, _join(where, name)) for name, item in data.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from None


def _union_from(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    """The first kind that takes the data; where none does, the error of the kind that has its shape."""
    if data is None and types.NoneType in kinds:
        return None
    mappings = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    if len(mappings) == 1 and isinstance(data, Mapping):  # what is wrong within it is told
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
    if dataclasses.is_dataclass(kind):  # of several, that which has such fields
        return isinstance(data, Mapping) and not data.keys().isdisjoint(
            field.name for field in dataclasses.fields(kind)
        )
    return typing.get_origin(kind) is tuple and isinstance(data, list | tuple)


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(kind))
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", types.NoneType: "null"}
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
    """One value that differs between two pieces of plain data."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {show(self.before)} -> {show(self.after)}"


def differences(before: Any, after: Any, path: str = "") -> list[Difference]:
    """What differs, down to the smallest parts that have a counterpart on the other side."""
    before, after = to_data(before), to_data(after)
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        pairs = [(_join(path, key), before[key], after[key]) for key in before]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and _nested(before):
        pairs = [(f"{path}[{i}]", old, new) for i, (old, new) in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [Difference(path, before, after)]
    return [found for where, old, new in pairs for found in differences(old, new, where)]


def show(value: Any) -> str:
    """Plain data as a person would write it in YAML."""
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
    """A measured number: 7.31, 68.9, and all of a large number's digits before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _nested(items: list[Any]) -> bool:
    return any(isinstance(item, dict | list) for item in items)
