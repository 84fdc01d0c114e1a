"""The file of a savepoint: a tar of parts that ends with their SHA-256 sums, every byte of it prescribed.

`tar xf` unpacks it and `sha256sum -c SHA256SUMS` checks it. The reader takes nothing but what the writer writes: a header
that differs in one bit, a part of another sum, padding that is not zero or bytes after the end are refused, and all of
the file is checked before any of it is believed. Names are never paths of the reader's file system.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import BinaryIO, Final

from driftline.streams.errors import SavepointError

SUMS: Final = "SHA256SUMS"
PART_BYTES_MAX: Final = 512 << 20
"""Redis takes no larger value."""
_NAME_BYTES_MAX: Final = 99
_SUMS_BYTES_MAX: Final = 256 << 20
_BLOCK: Final = 512
_PIECE: Final = 1 << 20
_END: Final = bytes(2 * _BLOCK)
_HINT: Final = "is it a file of `driftline state export`, copied whole and in binary?"


def tar_header(name: str, size: int) -> bytes:
    """The one header (ustar) of a part of this name and size; written here because that of `tarfile` changed between Pythons."""
    fields = b"".join(
        (
            name.encode("ascii").ljust(100, b"\0"),
            b"0000600\0",
            b"0000000\0" * 2,
            b"%011o\0" % size,
            b"%011o\0" % 0,
            b" " * 8,
            b"0".ljust(101, b"\0"),
            b"ustar\00000",
            bytes(64),
            b"0000000\0" * 2,
        )
    ).ljust(_BLOCK, b"\0")
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


class ArchiveWriter:
    """Writes parts one after the other; `close` writes the sums and the end."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._sums: dict[str, str] = {}

    def add(self, name: str, part: bytes) -> None:
        """Append a part.

        Raises
        ------
        ValueError : the name was used before, or does not fit a header.
        """
        if name in self._sums or name == SUMS or len(name) > _NAME_BYTES_MAX:
            raise ValueError(f'part "{name}": expected a new name of at most {_NAME_BYTES_MAX} characters')
        self._sums[name] = hashlib.sha256(part).hexdigest()
        self._write(name, part)

    def close(self) -> None:
        """Make the archive whole; the sink stays open."""
        self._write(SUMS, _listed(self._sums))
        self._sink.write(_END)

    def _write(self, name: str, part: bytes) -> None:
        self._sink.write(tar_header(name, len(part)))
        self._sink.write(part)
        self._sink.write(bytes(-len(part) % _BLOCK))


@dataclass(frozen=True, slots=True)
class _Place:
    start: int
    size: int
    digest: str


class ArchiveReader:
    """An archive that was read from end to end and is whole.

    Parameters
    ----------
    file : a regular file, open for reading; stays the caller's.

    Raises
    ------
    SavepointError : not an archive of ours, cut, or damaged; says where.
    """

    def __init__(self, file: BinaryIO) -> None:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise SavepointError("not a savepoint: not a regular file", hint=_HINT)
        self._file = file
        self._size = found.st_size
        self._places: dict[str, _Place] = {}
        self._scan()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each part."""
        return {name: place.size for name, place in self._places.items()}

    def read(self, name: str, limit: int = PART_BYTES_MAX) -> bytes:
        """A part, checked again: the file may have been written to since.

        Raises
        ------
        SavepointError : no such part, larger than `limit`, or changed.
        """
        place = self._places.get(name)
        if place is None or place.size > limit:
            raise SavepointError(f'damaged savepoint: part "{name[:_NAME_BYTES_MAX]}" is {"missing" if place is None else "too large"}')
        self._file.seek(place.start)
        part = self._file.read(place.size)
        if hashlib.sha256(part).hexdigest() != place.digest:
            raise SavepointError(f'the savepoint changed while it was read: part "{name}"')
        return part

    def _scan(self) -> None:
        self._file.seek(0)
        at = 0
        while True:
            name, size = self._header(at)
            if name == SUMS:
                self._check_sums(at + _BLOCK, size)
                return
            self._places[name] = _Place(at + _BLOCK, size, self._digest(name, size))
            at += _BLOCK + size + -size % _BLOCK

    def _header(self, at: int) -> tuple[str, int]:
        """Name and size of the part at a byte; its header must be the one this release would write."""
        header = self._file.read(_BLOCK)
        if len(header) < _BLOCK:
            raise self._cut() if at else SavepointError("not a savepoint", hint=_HINT)
        try:
            name = header[:100].rstrip(b"\0").decode("ascii")
            size = int(header[124:135], 8)
            same = tar_header(name, size) == header
        except (ValueError, OverflowError):
            name, size, same = "", 0, False
        if not same or not name or size < 0 or name in self._places:
            if at == 0:
                raise SavepointError("not a savepoint, or its first bytes are damaged", hint=_HINT)
            raise SavepointError(f"damaged savepoint: the header at byte {at:,}", hint=_HINT)
        if size > (_SUMS_BYTES_MAX if name == SUMS else PART_BYTES_MAX):
            raise SavepointError(f'damaged savepoint: part "{name}" of {size:,} bytes, expected at most {PART_BYTES_MAX:,}')
        if at + _BLOCK + size > self._size:
            raise self._cut()
        return name, size

    def _digest(self, name: str, size: int) -> str:
        digest = hashlib.sha256()
        left = size
        while left:
            piece = self._file.read(min(left, _PIECE))
            if not piece:
                raise self._cut()
            digest.update(piece)
            left -= len(piece)
        self._padding(name, size)
        return digest.hexdigest()

    def _padding(self, name: str, size: int) -> None:
        padding = self._file.read(-size % _BLOCK)
        if len(padding) < -size % _BLOCK:
            raise self._cut()
        if any(padding):
            raise SavepointError(f'damaged savepoint: after part "{name}"', hint=_HINT)

    def _check_sums(self, start: int, size: int) -> None:
        self._file.seek(start)
        found = self._file.read(size)
        if len(found) < size:
            raise self._cut()
        self._padding(SUMS, size)
        end = self._file.read(len(_END) + 1)
        if len(end) < len(_END):
            raise self._cut()
        if end != _END:
            raise SavepointError("damaged savepoint: bytes after its end", hint=_HINT)
        expected = _listed({name: place.digest for name, place in self._places.items()})
        if found != expected:
            wrong = _first_difference(found, expected)
            raise SavepointError(f"damaged savepoint: {wrong}", hint=_HINT)

    def _cut(self) -> SavepointError:
        return SavepointError(f"the savepoint is cut: it ends after {self._size:,} bytes, before its end mark", hint=_HINT)


def _listed(sums: dict[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


def _first_difference(found: bytes, expected: bytes) -> str:
    lines = expected.splitlines()
    for line, other in zip(lines, found.splitlines(), strict=False):
        if line != other:
            return f'part "{line.partition(b"  ")[2].decode()}" does not match its sum'
    return f"its list of sums does not match its {len(lines)} parts"
