"""Members of a zip archive, read at random and from any number of processes."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from trainer.data.decoding import MAX_BYTES
from trainer.errors import DataError


class ZipReader:
    """Reads members whole. Processes may share it by fork, or be sent it: it travels as its path.

    Args:
        path: of the archive.

    Attributes:
        path: of the archive.
        names: of all members, in the archive's order.

    Raises:
        DataError: it is missing, not a whole zip archive, or a member's name is absolute or leads out of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = ZipFile(_PositionedFile(path))
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        except (BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise DataError(
                f"{path} is not a whole zip archive ({error}); copy it again, or make it again"
            ) from error
        self.names = tuple(self._archive.namelist())
        for name in self.names:
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise DataError(f"{path} has a member named {name!r}, outside its own folder; make it again")

    def __reduce__(self) -> tuple[type[ZipReader], tuple[Path]]:
        return ZipReader, (self.path,)

    def checksum(self, name: str) -> int:
        """Return the CRC-32 that the archive records of a member."""
        return self._archive.getinfo(name).CRC

    def read(self, name: str) -> bytes:
        """Return a member's content.

        Raises:
            DataError: there is none of this name, it is damaged, encrypted, or larger than `MAX_BYTES`.
        """
        try:
            size = self._archive.getinfo(name).file_size
            if size > MAX_BYTES:
                raise DataError(f"{self.path}: {name} unpacks to {size:,} bytes, more than {MAX_BYTES:,}")
            return self._archive.read(name)
        except KeyError as error:
            raise DataError(f"{self.path} has no member {name}") from error
        except (BadZipFile, OSError, EOFError, RuntimeError, ValueError, zlib.error) as error:
            raise DataError(f"{self.path}: {name} cannot be unpacked ({error}); replace it") from error


class _PositionedFile(io.RawIOBase):
    """A file that is read by absolute position: processes that share it after a fork share no place in it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size
        self._place = 0

    def close(self) -> None:
        self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = offset + (0, self._place, self._size)[whence]
        if place < 0:
            raise OSError(f"place {place} is before the file's beginning")
        self._place = place
        return place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = os.preadv(self._file.fileno(), [buffer], self._place)
        self._place += count
        return count
