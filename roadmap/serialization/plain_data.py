"""Frozen dataclasses to plain data (the types of JSON and YAML) and back, with checks, and their differences."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from roadmap.serialization.ranges import MAX_NUMBER, InvalidField, allowed_by, check, field_types
from roadmap.text import show, suggest

ADDED_IN = "added_in"  # key in the metadata of a field


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
    check_keys(changes, [field.name for field in dataclasses.fields(value)], where)
    return _made(partial(dataclasses.replace, value), type(value), changes, where)


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
    return _made(kind, kind, data, where)


def _made(make: Callable[..., Any], kind: Any, data: Mapping[str, Any], where: str) -> Any:
    """What `make` makes of fields of the dataclass `kind`, which are plain data."""
    hints = _unchecked_field_types(kind)
    values = {name: from_data(hints[name], item, _join(where, name)) for name, item in data.items()}
    try:
        return make(**values)
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


def _nested(items: list[Any]) -> bool:
    return any(isinstance(item, dict | list) for item in items)
