"""YAML as users read it, for files and for values on the command line."""

from __future__ import annotations

import re
from typing import Any

import yaml


class YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as users read it. The loaders of yaml follow YAML 1.1: 030 is 24, 1:30 is 90, and 4e-3 is text.

    Here 4e-3 is a number. The first two are errors, and so is a repeated key, of which yaml takes the last value.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
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
