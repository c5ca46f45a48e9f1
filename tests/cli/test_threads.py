"""The thread policy: waiting threads sleep, the user's settings stay, and it is set before torch is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spf_lite.cli.threads import set_thread_policy


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    return monkeypatch


def test_waiting_threads_sleep_and_their_number_is_free(environment: pytest.MonkeyPatch) -> None:
    set_thread_policy()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_number_of_threads_can_be_given(environment: pytest.MonkeyPatch) -> None:
    set_thread_policy(threads=1)
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_what_the_user_has_set_stays(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OMP_WAIT_POLICY", "active")
    environment.setenv("OMP_NUM_THREADS", "3")
    set_thread_policy(threads=1)
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["OMP_NUM_THREADS"]) == ("active", "3")


def test_the_command_line_sets_it_before_torch_is_imported(tmp_path: Path) -> None:
    code = """
import json, os, sys
from spf_lite.cli import parser, set_thread_policy, main
import spf_lite.cli as cli
def watched(threads=None):
    set_thread_policy(threads)
    print(json.dumps(["torch" in sys.modules, os.environ["OMP_WAIT_POLICY"]]))
cli.set_thread_policy = watched
main(["render", sys.argv[1], "--count", "1", "--size", "16"])
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    command = [sys.executable, "-c", code, str(tmp_path / "sheet.png")]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert json.loads(shown.stdout.splitlines()[0]) == [False, "passive"]


def test_the_tests_themselves_use_one_thread() -> None:
    import torch

    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
