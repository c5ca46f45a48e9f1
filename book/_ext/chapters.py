"""Execute chapters side by side, before Sphinx reads them one after the other.

myst-nb would execute each chapter as it comes to it, on all cores at once. Two chapters at a time with one thread each
take less time, and a busy neighbour does not stop them. What is executed goes into the cache that myst-nb and the tests
look into.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util import logging

logger = logging.getLogger(__name__)


def executed_chapter(cache: JupyterCacheAbstract, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The notebook with the outputs of its last successful execution, or None if the cache holds none."""
    try:
        executed: nbformat.NotebookNode = cache.merge_match_into_notebook(notebook)[1]
    except KeyError:
        return None
    return executed


def execute_missing(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Execute the chapters that Sphinx is about to read and that the cache does not hold, ``WORKERS`` at a time.

    Those of ``execute_first`` come first: a long chapter that starts last would end alone.

    Raises:
        ExtensionError: if chapters fail, with the traceback of each; the others are executed and cached.
    """
    cache = get_cache(app.config.nb_execution_cache_path)
    missing: dict[Path, nbformat.NotebookNode] = {}
    first = list(app.config.execute_first)
    ordered = sorted(docnames, key=lambda name: first.index(name) if name in first else len(first))
    for path in (Path(env.doc2path(name)) for name in ordered):
        if path.suffix == ".ipynb":
            notebook = nbformat.read(path, as_version=4)
            if executed_chapter(cache, notebook) is None:
                missing[path] = notebook

    def execute(path: Path) -> tuple[Path, ExecutionResult]:
        logger.info("executing %s", path.name)
        return path, single_nb_execution(
            missing[path], cwd=str(path.parent), timeout=app.config.nb_execution_timeout, allow_errors=False
        )

    failures: list[str] = []
    with ThreadPoolExecutor(int(os.environ.get("WORKERS", "2"))) as pool:
        for done in as_completed([pool.submit(execute, path) for path in missing]):
            path, result = done.result()
            if result.err is not None:
                failures.append(f"{path.name} failed:\n{result.exc_string}")
                continue
            logger.info("executed %s in %.0f s", path.name, result.time)
            bundle = CacheBundleIn(missing[path], str(path), data={"execution_seconds": result.time})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    if failures:
        raise ExtensionError("\n\n".join(failures))
