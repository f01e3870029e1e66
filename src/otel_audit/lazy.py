"""An attribute that is worked out when it is first asked for, without a lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - a decorator, named like one
    """As :func:`functools.cached_property`, which takes one lock for all objects of a class before Python 3.12.

    A process that forks while another thread holds that lock has a child in which it is never released: the child
    hangs at the next such attribute.  Here two threads may work it out at the same time, and one result is kept.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self._name = function.__name__
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, obj: None, owner: type) -> lazy[T]: ...

    @overload
    def __get__(self, obj: object, owner: type | None = None) -> T: ...

    def __get__(self, obj: object | None, owner: type | None = None) -> lazy[T] | T:
        if obj is None:
            return self
        found: T = obj.__dict__.setdefault(self._name, self._function(obj))
        return found
