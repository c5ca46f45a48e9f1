import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spf_lite.files import append_text, is_writable, read_text, replacing, write_file, write_files


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_file(path, "first")
    write_file(path, b"second")
    with replacing(path) as file:
        file.write(b"third")
        assert path.read_bytes() == b"second", "until the block ends"
    assert path.read_bytes() == b"third" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "a.json"
    write_file(path, "old")
    with pytest.raises((KeyboardInterrupt, ValueError, OSError)), replacing(path) as file:
        file.write(b"half of the new")
        raise failure
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_path_and_keeps_its_error_number(tmp_path: Path) -> None:
    write_file(tmp_path / "a", "old")
    message = f"{tmp_path / 'a'}: cannot be written, what was there before is kept .No space left"
    with pytest.raises(OSError, match=message) as caught, replacing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="file write failed"), replacing(tmp_path / "a"):
        raise RuntimeError("[enforce fail at inline_container.cc] . file write failed")  # as torch.save says it


def test_a_real_limit_on_the_size_of_files_is_a_named_error(tmp_path: Path) -> None:
    """The kernel itself refuses to write, as it does when a disk is full."""
    write_file(tmp_path / "old", "old")
    program = f"""
import resource, torch
from spf_lite.files import replacing, write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (lambda: write_file({str(tmp_path / "old")!r}, b"x" * 2000), lambda: save()):
    def save():
        with replacing({str(tmp_path / "old")!r}) as file:
            torch.save(torch.zeros(5000), file)
    try:
        write()
    except OSError as error:
        print("named" if {str(tmp_path / "old")!r} in str(error) else error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["named", "named"], done.stdout
    assert (tmp_path / "old").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_files_that_belong_together_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_files({first: "old", second: "old"})
    real, count = os.fsync, 0

    def full(number: int) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=str(second)):
        write_files({first: "new", second: "new"})
    assert first.read_text() == second.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_text_is_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    program = (
        "from spf_lite.files import append_text, write_file, read_text\n"
        f"write_file({str(tmp_path / 'a')!r}, chr(0x1F60E)); append_text({str(tmp_path / 'a')!r}, chr(0xE9))\n"
        f"assert len(read_text({str(tmp_path / 'a')!r})) == 2"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert (
        tmp_path / "a"
    ).read_bytes().decode() == "\N{SMILING FACE WITH SUNGLASSES}\N{LATIN SMALL LETTER E WITH ACUTE}"


def test_what_is_no_utf_8_is_named_and_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfwords")
    assert read_text(tmp_path / "marked") == "words"
    (tmp_path / "latin").write_bytes(b"\xe9t\xe9")
    with pytest.raises(ValueError, match=f"{tmp_path / 'latin'}: not a UTF-8 text"):
        read_text(tmp_path / "latin")


def test_appending_to_what_cannot_be_written_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"{tmp_path}: cannot be written"):
        append_text(tmp_path, "a folder is no file")
    append_text(tmp_path / "log", "a\n")
    append_text(tmp_path / "log", "b\n")
    assert (tmp_path / "log").read_text() == "a\nb\n"


def test_what_torch_saves_is_read_back(tmp_path: Path) -> None:
    with replacing(tmp_path / "state.pt") as file:
        torch.save({"a": torch.ones(2)}, file)
    assert torch.equal(torch.load(tmp_path / "state.pt", weights_only=True)["a"], torch.ones(2))


def test_a_folder_is_writable_if_the_nearest_one_that_exists_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path / "file", "in the way")
    assert is_writable(tmp_path / "new" / "run") and not is_writable(tmp_path / "file" / "run")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert not is_writable(tmp_path / "new" / "run")
