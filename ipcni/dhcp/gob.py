"""Go's gob encoding, as much of it as net/rpc needs: structs, slices, integers, texts and bytes (IPAM sheet 4.6)."""

from collections.abc import Iterator
from typing import Any

import msgspec

INT, UINT, BYTES, STRING = 2, 3, 5, 6
_FIRST = 64  # the first number that is not predefined
_MAX = 1 << 20  # bytes of a message
_DEEP = 32


class GobError(ValueError):
    """Bytes that are no gob, or not such a one."""


class Slice(msgspec.Struct, frozen=True):
    of: "Type"


class Struct(msgspec.Struct, frozen=True):
    """Fields in Go's order, with their types."""

    name: str
    fields: "tuple[tuple[str, Type], ...]" = ()


Type = int | Slice | Struct
_Definition = tuple[str, Any]  # ("struct", ((name, type), ...)) or ("slice", type)


def unsigned(number: int) -> bytes:
    if number < 128:
        return bytes((number,))
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes((256 - len(data),)) + data


def signed(number: int) -> bytes:
    return unsigned(number << 1 if number >= 0 else ~number << 1 | 1)


def _text(text: str | bytes) -> bytes:
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return unsigned(len(data)) + data


class Encoder:
    """One direction of a stream: a type is defined before its first value."""

    def __init__(self) -> None:
        self._known: dict[Type, int] = {}

    def message(self, kind: Struct, value: dict[str, Any]) -> bytes:
        """A value, its fields by name, with the definitions that it needs. Fields that are left out are zero."""
        definitions: list[bytes] = []
        number = self._define(kind, definitions)
        body = signed(number) + _value(kind, value)
        return b"".join(definitions) + unsigned(len(body)) + body

    def _define(self, kind: Type, definitions: list[bytes]) -> int:
        if isinstance(kind, int):
            return kind
        if kind in self._known:
            return self._known[kind]
        number = self._known[kind] = _FIRST + len(self._known)
        at = len(definitions)
        definitions.append(b"")  # a type comes before those of its fields, whose numbers it needs
        if isinstance(kind, Slice):
            common = b"\1" + _common("", number)
            body = b"\2" + common + b"\1" + signed(self._define(kind.of, definitions)) + b"\0"
        else:
            fields = b"".join(
                b"\1" + _text(name) + b"\1" + signed(self._define(each, definitions)) + b"\0" for name, each in kind.fields
            )
            body = b"\3\1" + _common(kind.name, number)
            body += (b"\1" + unsigned(len(kind.fields)) + fields if fields else b"") + b"\0"
        body = signed(-number) + body + b"\0"
        definitions[at] = unsigned(len(body)) + body
        return number


def _common(name: str, number: int) -> bytes:
    return (b"\1" + _text(name) + b"\1" if name else b"\2") + signed(number) + b"\0"


def _value(kind: Type, value: Any) -> bytes:
    match kind:
        case Struct():
            data, last = b"", -1
            for index, (name, each) in enumerate(kind.fields):
                item = value.get(name)
                if item or (isinstance(each, Struct) and item is not None):
                    data += unsigned(index - last) + _value(each, item)
                    last = index
            return data + b"\0"
        case Slice(of):
            return unsigned(len(value)) + b"".join(_value(of, item) for item in value)
        case _ if kind == INT:
            return signed(value)
        case _ if kind == UINT:
            return unsigned(value)
    return _text(value)


class Decoder:
    """The other direction: values come as dicts by the names that the stream itself defines. Missing fields are zero there."""

    def __init__(self) -> None:
        self._types: dict[int, _Definition] = {}

    def value(self, message: bytes) -> dict[str, Any] | None:
        """What a message (without its length) says, or None for one that defines a type. Raises GobError."""
        read = _Reader(message)
        number = read.signed()
        if number < 0:
            self._types[-number] = _definition(read)
            return None
        value = self._read(read, number, 0)
        if not isinstance(value, dict):
            raise GobError("a value that is no struct")
        return value

    def _read(self, read: "_Reader", number: int, depth: int) -> Any:
        match number:
            case 1:
                return bool(read.unsigned())
            case 2:
                return read.signed()
            case 3:
                return read.unsigned()
            case 5:
                return read.data()
            case 6:
                return read.data().decode("utf-8", "surrogateescape")
        if number not in self._types or depth > _DEEP:
            raise GobError(f"type {number} is not known")
        form, parts = self._types[number]
        if form == "slice":
            return [self._read(read, parts, depth + 1) for _ in range(read.count())]
        found = {}
        for index in read.fields():
            if index >= len(parts):
                raise GobError("a field that is not defined")
            name, kind = parts[index]
            found[name] = self._read(read, kind, depth + 1)
        return found


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def unsigned(self) -> int:
        first = self._take(1)[0]
        if first < 128:
            return first
        if first < 256 - 8:
            raise GobError("a number that is too long")
        return int.from_bytes(self._take(256 - first), "big")

    def signed(self) -> int:
        number = self.unsigned()
        return ~(number >> 1) if number & 1 else number >> 1

    def data(self) -> bytes:
        return self._take(self.unsigned())

    def count(self) -> int:
        """The length of a slice: each element is a byte at least."""
        number = self.unsigned()
        if number > len(self._data) - self._at:
            raise GobError("a slice that is too long")
        return number

    def fields(self) -> Iterator[int]:
        """The numbers of the fields that are there."""
        index = -1
        while step := self.unsigned():
            index += step
            yield index

    def _take(self, length: int) -> bytes:
        part = self._data[self._at : self._at + length]
        if len(part) != length:
            raise GobError("it ends too early")
        self._at += length
        return part


def _definition(read: _Reader) -> _Definition:
    """A wireType: of arrays, slices, structs and maps (fields 0 to 3) one is there."""
    found: _Definition | None = None
    for form in read.fields():
        parts: Any = None
        for field in read.fields():
            if field == 0:
                _common_type(read)
            elif form == 1 and field == 1:
                parts = read.signed()
            elif form == 2 and field == 1:
                parts = tuple(_field(read) for _ in range(read.count()))
            else:
                raise GobError("a type that is neither struct nor slice")
        found = ("slice", parts) if form == 1 else ("struct", parts or ())
    if found is None or found[1] is None:
        raise GobError("a type without content")
    return found


def _common_type(read: _Reader) -> None:
    for field in read.fields():
        if field == 0:
            read.data()
        else:
            read.signed()


def _field(read: _Reader) -> tuple[str, int]:
    name, kind = "", 0
    for field in read.fields():
        if field == 0:
            name = read.data().decode("utf-8", "replace")
        else:
            kind = read.signed()
    return name, kind


def length(first: int) -> int:
    """How many more bytes tell the length of a message that begins with this one."""
    return 0 if first < 128 else 256 - first


def checked(size: int) -> int:
    """The length of a message. Raises GobError for one that nobody should send."""
    if not 0 < size <= _MAX:
        raise GobError(f"a message of {size} bytes")
    return size
