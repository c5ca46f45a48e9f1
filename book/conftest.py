"""nbval tests the chapters; what `make book` executed is not run again."""

from collections.abc import Generator
from pathlib import Path

import pytest
from execution_key import cache_folder
from nbval.plugin import IPyNbFile
from nbval_replay import Chapter, recorded
from spf_lite.cli.threads import set_thread_policy

set_thread_policy(threads=1)  # the kernels of chapters inherit it


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    collectors = yield
    return [
        Chapter.from_parent(parent, path=file_path)
        if isinstance(collector, IPyNbFile)
        else collector
        for collector in collectors
    ]


def pytest_report_header(config: pytest.Config) -> str:
    chapters = sorted(Path(__file__).parent.glob("*.ipynb"))
    folder = cache_folder()
    again = [
        path.stem for path in chapters if recorded(path, folder) is None
    ]
    return (
        f"chapters: {len(chapters) - len(again)} as `make book` executed"
        f" them; to execute: {', '.join(again) or 'none'}"
    )
