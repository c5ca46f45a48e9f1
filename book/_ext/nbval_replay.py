"""Let nbval look at a chapter as `make book` executed it, instead of executing it once more.

nbval compares the outputs that a kernel sends with those that the notebook holds. Here the kernel is a recording: it
sends the outputs of the cached execution. Everything else is nbval's own. A chapter is only recorded if it ran to its
end, with this library and these weights; nbval executes any other itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
from jupyter_cache import get_cache
from nbval.plugin import IPyNbFile

from chapters import executed_chapter
from execution_key import cache_folder


class RecordedKernel:
    """What nbval asks of a kernel, answered by a notebook that was executed."""

    def __init__(self, executed: nbformat.NotebookNode) -> None:
        self._cells = iter([cell for cell in executed.cells if cell.cell_type == "code"])
        self._messages: Iterator[dict[str, Any]] = iter(())

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> str:
        """Go on to the next cell with this source; returns the id that its messages answer to."""
        cell = next((cell for cell in self._cells if cell.source == cell_input), None)
        if cell is None:
            raise RuntimeError("the cached execution has no such cell: run `make clean`")
        ends = nbformat.from_dict({"output_type": "status", "execution_state": "idle"})
        self._messages = (
            {"msg_type": output.output_type, "parent_header": {"msg_id": cell.source}, "content": output}
            for output in [*cell.outputs, ends]
        )
        return cell_input

    def get_message(self, stream: str, timeout: float | None = None) -> dict[str, Any]:
        """The next output, then the news that the kernel is idle."""
        message = next(self._messages, None)
        if message is None:
            raise Empty
        return message

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """The reply is there already."""

    def await_idle(self, msg_id: str, timeout: float | None = None) -> None:
        """So is the end."""

    def is_alive(self) -> bool:
        return True

    def interrupt(self) -> None:
        """Nothing runs."""

    def stop(self) -> None:
        """Nothing runs."""


class Chapter(IPyNbFile):
    """A notebook that is executed only if the book's cache does not hold its execution."""

    def setup(self) -> None:
        executed = recorded(self.path)
        if executed is None:
            super().setup()
            return
        self.kernel = RecordedKernel(executed)
        self.setup_sanitize_files()


def recorded(path: Path, folder: Path | None = None) -> nbformat.NotebookNode | None:
    """The notebook as it was executed for the book, or None if it was not."""
    folder = folder or cache_folder()
    if not folder.is_dir():
        return None
    return executed_chapter(get_cache(folder), nbformat.read(path, as_version=4))
