"""Values in Thrift's compact protocol. Source: Thrift's doc/specs/thrift-compact-protocol.md."""

from typing import Any

MAX_DEPTH = 12


class Invalid(Exception):
    """Not a value in the protocol, or one that another reader may take for a different one."""


class Compact:
    """Reads structs as dictionaries: the fields by their numbers, text as bytes."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.place = 0
        """Of the next byte."""

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Returns the fields of a struct.

        Raises:
            Invalid: it is none, or cut off.
        """
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            # Of a field that is there twice, another reader may take the other one.
            if number in fields or depth > MAX_DEPTH:
                raise Invalid
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                return self._list(depth)
            case 12:
                return self.struct(depth + 1)
            case _:
                raise Invalid  # a map: nothing that is read here has one

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._varint()
        # Every element has a byte.
        if size > len(self._data) - self.place or depth > MAX_DEPTH:
            raise Invalid
        return [self._value(head & 15, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        if self.place >= len(self._data):
            raise Invalid
        self.place += 1
        return self._data[self.place - 1]

    def _bytes(self, n_bytes: int) -> bytes:
        self.place += n_bytes
        if self.place > len(self._data):
            raise Invalid
        return bytes(self._data[self.place - n_bytes : self.place])

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise Invalid

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
