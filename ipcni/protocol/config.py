"""JSON to checked types, by the rules runtimes rely on (Go's decoder): keys match in any letter case, null is absent."""

import functools
import json
import math
import re
import types
import typing
from typing import Any, TypeVar

import msgspec

from ipcni.errors import CniError

T = TypeVar("T", bound=msgspec.Struct)

_EXPONENT_FROM = 1e21  # Go writes greater numbers with an exponent, as Python does
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Fraction(float):
    """A JSON number written with a point or an exponent: no integer field takes it, as in Go."""


def parse(data: bytes) -> object:
    """A JSON text as Go's decoder reads it: bad UTF-8 becomes U+FFFD, the last of two equal keys wins.

    Raises ValueError for everything that is not exactly one JSON value.
    """
    text = data.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_float=_fraction, parse_constant=_refuse, object_pairs_hook=_last_wins)
        return _without_surrogates(value) if _LONE_SURROGATE.search(text) else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _fraction(text: str) -> Fraction:
    number = Fraction(text)
    if math.isinf(number):
        raise ValueError(f"number {text} is out of range")
    return number


def _refuse(word: str) -> object:
    raise ValueError(f"invalid literal {word}")


def _last_wins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Keeps the place of the last spelling, so that among spellings that differ in case the last one wins too."""
    found: dict[str, object] = {}
    for key, value in pairs:
        found.pop(key, None)
        found[key] = value
    return found


def _without_surrogates(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_without_surrogates(item) for item in value]
        case dict():
            return {str(_without_surrogates(key)): _without_surrogates(item) for key, item in value.items()}
    return value


def dump(value: object) -> bytes:
    """JSON as Go writes it: compact, `< > &` escaped, whole numbers without a point; the keys in the order they are in."""
    text = json.dumps(_plain_numbers(value), ensure_ascii=False, separators=(",", ":"))
    return escape(text).encode("utf-8", "replace")


def _plain_numbers(value: object) -> object:
    match value:
        case float() if value.is_integer() and abs(value) < _EXPONENT_FROM:
            return int(value)
        case dict():
            return {key: _plain_numbers(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain_numbers(item) for item in value]
    return value


def in_order(value: object) -> object:
    """The value with the keys of all its objects in alphabetical order."""
    match value:
        case dict():
            return {key: in_order(value[key]) for key in sorted(value)}
        case list() | tuple():
            return [in_order(item) for item in value]
    return value


def escape(text: str) -> str:
    """Go's escapes for the characters that are special in HTML and JavaScript."""
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def decode(value: object, kind: type[T], *, prefix: str = "failed to load netconf") -> T:
    """A JSON object as a config type.

    Raises CniError 999 that names the key (as a path, `$.ipam.ranges[0]`) and what is wrong with it.
    """
    try:
        return msgspec.convert(_fold(value, kind), kind)
    except msgspec.ValidationError as error:
        raise CniError(f"{prefix}: {error}" if prefix else str(error)) from error


def _fold(value: Any, kind: Any, path: str = "$") -> Any:
    """The value with its typed keys spelled as the type spells them, and without nulls.

    Raises ValidationError for what Go's types or no system call can hold.
    """
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        fields = _fields(kind)
        folded = {}
        for key, item in value.items():
            if item is not None and (field := fields.get(key.lower())):
                folded[field.encode_name] = _fold(item, field.type, f"{path}.{field.encode_name}")
        return folded
    if isinstance(value, list) and typing.get_origin(kind) in (tuple, list):
        inner = typing.get_args(kind)[0]
        return [_fold(item, inner, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str) and "\0" in value:
        raise msgspec.ValidationError(f"NUL in a text - at `{path}`")
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise msgspec.ValidationError(f"Number out of range - at `{path}`")
    return value


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name.lower(): field for field in msgspec.structs.fields(kind)}


def find(conf: dict[str, Any], key: str) -> Any:
    """The value of a key in any letter case, or None."""
    found = None
    for spelling, value in conf.items():
        if spelling.lower() == key.lower() and value is not None:
            found = value
    return found
