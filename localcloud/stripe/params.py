"""Stripe's form-encoded, nested parameters: `items[0][price]=price_1&expand[]=customer`.

`parse` makes dicts and lists of them; `Params` reads them by name and kind, remembers which were
read and refuses the rest, because a fake server that drops a parameter silently would hide a mistake
that the real Stripe reports.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from controlplane.localcloud.stripe.errors import StripeError, missing, unknown

MAX_DEPTH = 8
MAX_PARAMETERS = 1000
METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 50, 40, 500
_PART = re.compile(r"\[([^\]\[]*)\]")


def parse(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Raises StripeError where names contradict each other or nest too deep."""
    root: dict[str, Any] = {}
    for index, (name, value) in enumerate(pairs):
        if index >= MAX_PARAMETERS:
            raise StripeError(f"More than {MAX_PARAMETERS} parameters.")
        head, _, rest = name.partition("[")
        parts = [head, *_PART.findall("[" + rest)] if rest else [head]
        if not head or len(parts) > MAX_DEPTH:
            raise StripeError(f"Invalid parameter name: {name[:100]}", param=name[:100])
        node = root
        for position, part in enumerate(parts):
            key = part or str(len(node))
            if position == len(parts) - 1:
                node[key] = value
                break
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise StripeError(f"Invalid parameter: {name[:100]}", param=name[:100])
    return root


class Params:
    """The parameters of one call, or of one nested object in it (`prefix` is its name)."""

    def __init__(self, values: dict[str, Any], prefix: str = "") -> None:
        self._values = values
        self._prefix = prefix
        self._read: set[str] = set()
        self._children: list[Params] = []

    def name(self, key: str) -> str:
        return f"{self._prefix}[{key}]" if self._prefix else key

    def has(self, key: str) -> bool:
        return key in self._values

    def is_empty(self, key: str) -> bool:
        """Given as an empty string, which unsets; counts as read then."""
        empty = self._values.get(key) == ""
        if empty:
            self._read.add(key)
        return empty

    def unread(self) -> list[str]:
        """The parameters that nothing has read."""
        return [self.name(key) for key in self._values if key not in self._read]

    def string(self, key: str, *, limit: int = 5000) -> str | None:
        """None where it is absent; an empty string says "unset"."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise StripeError(f"Invalid string: {self.name(key)}", param=self.name(key))
        if len(value) > limit:
            raise StripeError(
                f"Invalid string: must be at most {limit} characters",
                code="parameter_invalid_string_length",
                param=self.name(key),
            )
        return value

    def required(self, key: str) -> str:
        value = self.string(key)
        if value is None:
            raise missing(self.name(key))
        if value == "":
            raise StripeError(
                "You passed an empty string for this parameter.",
                code="parameter_invalid_empty",
                param=self.name(key),
            )
        return value

    def integer(self, key: str, *, low: int = 0, high: int = 2**53) -> int | None:
        value = self.string(key)
        if value is None:
            return None
        if not re.fullmatch(r"-?\d{1,18}", value) or not low <= int(value) <= high:
            raise StripeError(
                f"Invalid integer: {value[:50]}", code="parameter_invalid_integer", param=self.name(key)
            )
        return int(value)

    def boolean(self, key: str) -> bool | None:
        value = self.string(key)
        if value is None:
            return None
        if value not in ("true", "false"):
            raise StripeError(f"Invalid boolean: {value[:50]}", param=self.name(key))
        return value == "true"

    def choice(self, key: str, allowed: Sequence[str]) -> str | None:
        value = self.string(key)
        if value is None or value in allowed:
            return value
        raise StripeError(
            f"Invalid {self.name(key)}: must be one of {', '.join(allowed)}", param=self.name(key)
        )

    def strings(self, key: str) -> list[str] | None:
        value = self._take(key)
        if value is None:
            return None
        items = list(value.values()) if isinstance(value, dict) else [value]
        if not all(isinstance(item, str) for item in items):
            raise StripeError(f"Invalid array: {self.name(key)}", param=self.name(key))
        return items

    def object(self, key: str) -> Params | None:
        """A nested object; None where it is absent."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise StripeError(f"Invalid object: {self.name(key)}", param=self.name(key))
        return self._child(value, self.name(key))

    def objects(self, key: str) -> list[Params] | None:
        """A list of nested objects; None where it is absent."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
            raise StripeError(f"Invalid array: {self.name(key)}", param=self.name(key))
        return [self._child(item, f"{self.name(key)}[{index}]") for index, item in enumerate(value.values())]

    def metadata(self, current: dict[str, str]) -> dict[str, str]:
        """`current` with this call's changes: an empty value removes a key, an empty
        `metadata` all of them."""
        value = self._take("metadata")
        if value is None:
            return current
        if value == "":
            return {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise StripeError("Invalid object", param=self.name("metadata"))
        merged = {key: item for key, item in {**current, **value}.items() if item != ""}
        if (
            len(merged) > METADATA_KEYS
            or any(len(key) > METADATA_KEY_LENGTH for key in merged)
            or any(len(item) > METADATA_VALUE_LENGTH for item in merged.values())
        ):
            raise StripeError(
                f"Metadata holds up to {METADATA_KEYS} keys of {METADATA_KEY_LENGTH} characters "
                f"with values of {METADATA_VALUE_LENGTH}.",
                param=self.name("metadata"),
            )
        return merged

    def range(self, key: str) -> Callable[[int], bool]:
        """A test for `key=N` or `key[gte]=N` and its like; true for all where it is absent."""
        if isinstance(self._values.get(key), str):
            exact = self.integer(key)
            return lambda value: value == exact
        bounds = self.object(key)
        if bounds is None:
            return lambda _value: True
        gt, gte = bounds.integer("gt"), bounds.integer("gte")
        lt, lte = bounds.integer("lt"), bounds.integer("lte")
        return lambda value: (
            (gt is None or value > gt)
            and (gte is None or value >= gte)
            and (lt is None or value < lt)
            and (lte is None or value <= lte)
        )

    def finish(self) -> None:
        """Refuse the first parameter that nothing has read."""
        for name in self.unread():
            raise unknown(name)
        for child in self._children:
            child.finish()

    def _take(self, key: str) -> Any:
        self._read.add(key)
        return self._values.get(key)

    def _child(self, values: dict[str, Any], prefix: str) -> Params:
        child = Params(values, prefix)
        self._children.append(child)
        return child
