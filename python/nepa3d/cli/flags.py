"""The flags of a command: one for each field of its dataclass; a nested dataclass is a group of flags.

A flag may be spelled otherwise than its value: ``Spelled`` in the annotation of a field says how, see
``nepa3d.cli.spellings``. Files and command lines hold the spelling, Python the value.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import PurePath
from typing import Annotated, Any, TypeVar

Config = TypeVar("Config")


@dataclass(frozen=True)
class Spelled:
    """How the value of a field is written as a flag, and read back. In the ``Annotated`` type of that field."""

    spelling: Callable[[Any], Any]
    value: Callable[[Any], Any]


@dataclass(frozen=True)
class Flag:
    """One flag of a command."""

    name: str
    type: Any
    """Type of the field, without ``Annotated``."""
    default: Any
    """Value of the field where the flag is left out; ``dataclasses.MISSING`` if it must be given."""
    spelled: Spelled
    group: tuple[str, ...]
    """Names of the fields that lead to the nested dataclass that holds it."""
    annotation: Any
    """Type of the field as it is written, ``Annotated`` or not."""

    def spelling(self, value: Any) -> Any:
        """``value`` as a file holds it: numbers, strings, lists."""
        return _plain(self.spelled.spelling(value))


AS_IT_IS = Spelled(lambda value: value, lambda spelling: spelling)


def flags(config_type: type[Any]) -> dict[str, Flag]:
    """The flags of a command's dataclass by name, in order. ``ValueError`` if two have one name."""
    found: dict[str, Flag] = {}
    for flag in _flags(config_type, ()):
        if flag.name in found:
            raise ValueError(f"{config_type.__name__} has two flags {flag.name}")
        found[flag.name] = flag
    return found


def _flags(config_type: type[Any], group: tuple[str, ...]) -> Iterator[Flag]:
    hints = typing.get_type_hints(config_type, include_extras=True)
    for field in dataclasses.fields(config_type):
        annotation, metadata = hints[field.name], list[Any]()
        hint = annotation
        if typing.get_origin(hint) is Annotated:
            hint, *metadata = typing.get_args(hint)
        if dataclasses.is_dataclass(hint):
            yield from _flags(typing.cast("type[Any]", hint), (*group, field.name))
            continue
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        spelled = next((found for found in metadata if isinstance(found, Spelled)), AS_IT_IS)
        yield Flag(field.name, hint, default, spelled, group, annotation)


def ungrouped(config_type: type[Any]) -> type[Any]:
    """A dataclass of the same flags without groups and docstrings."""
    fields = []
    for flag in flags(config_type).values():
        default = {} if flag.default is MISSING else {"default": flag.default}
        fields.append((flag.name, flag.annotation, dataclasses.field(**default)))
    return dataclasses.make_dataclass(config_type.__name__, fields, kw_only=True)


def values(config: Any) -> dict[str, Any]:
    """The value of every flag of ``config``, by the flag's name."""
    return {name: _value(config, flag) for name, flag in flags(type(config)).items()}


def spellings(config: Any) -> dict[str, Any]:
    """Every flag of ``config`` as files hold it: numbers, strings and lists."""
    return {name: flag.spelling(_value(config, flag)) for name, flag in flags(type(config)).items()}


def differing(before: Mapping[str, Any], config: Any, *, harmless: Sequence[str] = ()) -> list[str]:
    """The flags of ``config`` that differ from those of an earlier run, as "lr 0.1 -> 0.2"; both by their spelling.

    A flag that the run did not know had its default. None, which stands for what a run finds, differs from nothing.
    """
    now, known = values(config), flags(type(config))
    found = []
    for name, flag in known.items():
        if name in harmless or now[name] is None or (name not in before and flag.default is MISSING):
            continue
        was, spelling = before.get(name, flag.spelling(flag.default)), flag.spelling(now[name])
        if was != spelling:
            found.append(f"{name} {was} -> {spelling}")
    return found


def build(config_type: type[Config], given: Mapping[str, Any]) -> Config:
    """A configuration of flags given by name and spelling, the others as they are by default.

    ``ValueError`` naming a flag that there is not, or that is missing.
    """
    known = flags(config_type)
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{unknown[0]} is no flag of {config_type.__name__}, expected one of {', '.join(known)}")
    missing = [name for name, flag in known.items() if flag.default is MISSING and name not in given]
    if missing:
        raise ValueError(f"{missing[0]} must be given")
    return _build(config_type, {name: known[name].spelled.value(spelling) for name, spelling in given.items()})


def _build(config_type: type[Config], given: Mapping[str, Any]) -> Config:
    fields: dict[str, Any] = {}
    for name, nested in fields_of(config_type).items():
        if nested is not None:
            fields[name] = _build(nested, given)
        elif name in given:
            fields[name] = given[name]
    return config_type(**fields)


def fields_of(config_type: type[Any]) -> dict[str, type[Any] | None]:
    """The fields of a dataclass, each with the dataclass that is nested there, or ``None`` if it is a flag."""
    hints = typing.get_type_hints(config_type)
    return {
        field.name: hints[field.name] if dataclasses.is_dataclass(hints[field.name]) else None
        for field in dataclasses.fields(config_type)
    }


def command_line(config: Any) -> list[str]:
    """The words that give a command the flags of ``config``, those that are as by default left out."""
    import tyro  # here, so that worker processes importing a command's module do not load it

    words: list[str] = []
    for name, flag in flags(type(config)).items():
        value = _value(config, flag)
        if tyro.conf.Positional in typing.get_args(flag.annotation):
            words.append(f"{flag.spelling(value)}")
            continue
        if value == flag.default and type(value) is type(flag.default):
            continue
        spelling = flag.spelling(value)
        if spelling is None:
            raise ValueError(f"{name} cannot be given as None, since it is {flag.default!r} by default")
        if isinstance(spelling, bool):
            words += [f"--{name}"] if spelling else [f"--no_{name}"]
        elif isinstance(spelling, list):
            words += [f"--{name}", *map(str, spelling)]
        else:
            words += [f"--{name}", f"{spelling}"]
    return words


def _value(config: Any, flag: Flag) -> Any:
    for name in flag.group:
        config = getattr(config, name)
    return getattr(config, flag.name)


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value
