"""Write files whole or not at all.

Content is written beside the file, forced to the disk and renamed. Whatever happens on the way (a kill, a full disk),
the name stands for the old content or for the new, never for part of it. Text is UTF-8 on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

#: Ends the names of files that are being written; what a kill leaves of them may be deleted.
UNFINISHED = ".tmp"


def _beside(path: Path) -> Path:
    # The process's number keeps apart two processes that write the same file.
    return path.with_name(f"{path.name}.{os.getpid()}{UNFINISHED}")


def _error(path: Path, error: Exception) -> OSError:
    reason = getattr(error, "strerror", None) or str(error)
    number = getattr(error, "errno", None)
    message = f"{path}: cannot be written, what was there before is kept ({reason})"
    return OSError(message) if number is None else OSError(number, message)


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file whose content takes the place of ``path`` when the block ends without an exception.

    Raises:
        OSError: if it cannot be written; the message names the path, and the old file is as it was.
    """
    path = Path(path)
    unfinished = _beside(path)
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise _error(path, error) from error
    finally:
        _remove(unfinished)


def _remove(unfinished: Path) -> None:
    try:
        unfinished.unlink(missing_ok=True)
    except OSError:  # a folder that became read-only: what matters was reported already
        return


def write_files(contents: Mapping[Path, bytes | str]) -> None:
    """Write several files that belong together: all of them are whole on the disk before the first is renamed.

    Args:
        contents: path to content; renamed in this order.

    Raises:
        OSError: if one cannot be written; the message names it. Up to the renaming, all old files are as they were.
    """
    unfinished: dict[Path, Path] = {}
    current = Path()
    try:
        for path, content in contents.items():
            current = path
            unfinished[path] = _beside(path)
            with unfinished[path].open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        for path, beside in unfinished.items():
            current = path
            beside.replace(path)
    except OSError as error:
        raise _error(current, error) from error
    finally:
        for beside in unfinished.values():
            _remove(beside)


def write_file(path: str | Path, content: bytes | str) -> None:
    """Write one file; see :func:`write_files`."""
    write_files({Path(path): content})


def append_text(path: str | Path, text: str) -> None:
    """Append to a text file. A kill may leave part of the last line.

    Raises:
        OSError: if it cannot be written; the message names the path.
    """
    path = Path(path)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OSError(error.errno, f"{path}: cannot be written ({error.strerror or error})") from error


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file, with or without a byte-order mark.

    Raises:
        ValueError: if it is no UTF-8 text; the message names the path.
        OSError: if it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a UTF-8 text ({error})") from error


def is_writable(folder: str | Path) -> bool:
    """Whether files can be made in a folder, or in the nearest folder above it that exists."""
    folder = Path(folder).absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
