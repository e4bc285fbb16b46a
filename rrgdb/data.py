"""Dataclasses that cost nothing until they are used.

The standard library compiles six functions for each class, which takes half a millisecond; a command that starts
defines a hundred classes, and calls few of these functions. Here each is compiled when it is called first. All else is
as there, and whatever is rare (representation, comparison, ``replace``, ``fields``) is made there. For type checkers
this is ``dataclasses.dataclass``; of its options there are ``frozen``, ``slots``, ``eq`` and ``weakref_slot``, of those
of ``field`` the two kinds of defaults. One dataclass does not inherit from another.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, **options: bool) -> Any:
        def made(plain: type) -> type:
            return _Made(plain, **options).cls

        return made if cls is None else made(cls)


_MISSING = dataclasses.MISSING
_RARE = ("__repr__", "__eq__", "__hash__", "__dataclass_fields__", "__dataclass_params__")
_OPTIONS = {"__repr__": "repr", "__eq__": "eq", "__hash__": "unsafe_hash"}
"""those of the standard library's that make one thing alone"""


class _Rare:
    """An attribute of a class that the standard library makes when it is asked for."""

    def __init__(self, made: _Made, name: str) -> None:
        self._made = made
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        found = self._made.complete(self._name)
        return found.__get__(instance, owner) if callable(found) else found


class _Made:
    """A class being made from a plain one: ``cls``."""

    cls: Any

    def __init__(
        self, plain: type, *, frozen: bool = False, slots: bool = False, eq: bool = True, weakref_slot: bool = False
    ) -> None:
        if any("__dataclass_fields__" in vars(base) for base in plain.__mro__[1:]):
            raise TypeError(f"{plain.__name__}: expected no dataclass as a base")
        self._plain = plain
        self._frozen = frozen
        self._eq = eq
        space = {name: value for name, value in vars(plain).items() if name not in ("__dict__", "__weakref__")}
        annotations = space.get("__annotations__", {})
        names = tuple(name for name, type_ in annotations.items() if not str(type_).startswith("ClassVar"))
        space["__qualname__"] = plain.__qualname__
        self._space = dict(space)
        self._defaults = {name: space[name] for name in names if name in space}
        self._names = names
        if slots:
            for name in self._defaults:
                del space[name]
            space["__slots__"] = (*names, "__weakref__") if weakref_slot else names
            if frozen:
                space |= {"__getstate__": self._state(), "__setstate__": self._set_state()}
            self.cls = type(plain)(plain.__name__, plain.__bases__, space)
        else:
            self.cls = plain
            for name, default in self._defaults.items():
                if isinstance(default, dataclasses.Field):
                    if default.default is _MISSING:
                        delattr(plain, name)
                    else:
                        setattr(plain, name, default.default)
        self._fill()

    def _fill(self) -> None:
        cls, own = self.cls, self._space
        setattr(cls, "__match_args__", self._names)  # noqa: B010 - not one of a checker's dataclass
        for name in _RARE:
            if name == "__hash__":
                if self._eq and own.get(name) is None:
                    cls.__hash__ = _Rare(self, name) if self._frozen else None
            elif name not in own and (self._eq or name != "__eq__"):
                setattr(cls, name, _Rare(self, name))
        if self._frozen:
            cls.__setattr__, cls.__delattr__ = _refuse_to_set, _refuse_to_delete
        if "__init__" not in own:

            def first(instance: object, /, *values: Any, **named: Any) -> None:
                cls.__init__ = self._init()
                cls.__init__(instance, *values, **named)

            cls.__init__ = first

    def _init(self) -> Any:
        """``__init__`` as the standard library has it."""
        known: dict[str, Any] = {"_set": object.__setattr__, "_missing": _MISSING}
        head, body = ["self"], []
        for name in self._names:
            default, value = self._defaults.get(name, _MISSING), name
            if isinstance(default, dataclasses.Field):
                if default.default_factory is not _MISSING:
                    known[f"_of_{name}"] = default.default_factory
                    value, default = f"_of_{name}() if {name} is _missing else {name}", _MISSING
                    head.append(f"{name}=_missing")
                else:
                    default = default.default
            if default is not _MISSING:
                known[f"_is_{name}"] = default
                head.append(f"{name}=_is_{name}")
            elif value == name:
                head.append(name)
            body.append(f"_set(self, {name!r}, {value})" if self._frozen else f"self.{name} = {value}")
        text = f"def __init__({', '.join(head)}):\n " + "\n ".join(body or ["pass"])
        exec(text, known)
        init = known["__init__"]
        init.__qualname__ = f"{self.cls.__qualname__}.__init__"
        init.__module__ = self.cls.__module__
        return init

    def complete(self, name: str) -> Any:
        """Have the standard library make one of ``_RARE``. Several threads may do so at once: each makes the same."""
        plain = self._plain
        twin: Any = type(plain)(
            plain.__name__, plain.__bases__, self._space | {"__doc__": plain.__doc__ or plain.__name__}
        )
        of_all = name == "__dataclass_params__"
        options = {"repr": of_all, "eq": of_all and self._eq, "frozen": of_all and self._frozen}
        options |= {_OPTIONS[name]: True} if name in _OPTIONS else {}
        dataclasses.dataclass(init=of_all, **options)(twin)
        found = vars(twin)[name]
        setattr(self.cls, name, found)
        return found

    def _state(self) -> Any:
        def get(instance: object) -> list[Any]:
            return [getattr(instance, name) for name in self._names]

        return get

    def _set_state(self) -> Any:
        def put(instance: object, state: list[Any]) -> None:
            for name, value in zip(self._names, state, strict=True):
                object.__setattr__(instance, name, value)

        return put


def _refuse_to_set(instance: object, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(instance: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
