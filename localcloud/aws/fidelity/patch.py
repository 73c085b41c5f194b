"""The ways in which this package changes moto."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def around(owner: type, name: str) -> Callable[[Function], Function]:
    """Decorator: calls of `owner.name` go to the decorated function instead, which gets what was
    there before as its first argument."""

    def install(repaired: Function) -> Function:
        original = getattr(owner, name)

        @functools.wraps(original)
        def call(*arguments: Any, **options: Any) -> Any:
            return repaired(original, *arguments, **options)

        put(owner, name, call)
        return repaired

    return install


def getter(owner: type, name: str) -> Callable[[Any], Any]:
    """What computes a property's value."""
    described: property = inspect.getattr_static(owner, name)
    assert described.fget is not None
    return described.fget


def put(owner: type, name: str, value: Any) -> None:
    """Give the class this attribute."""
    setattr(owner, name, value)
