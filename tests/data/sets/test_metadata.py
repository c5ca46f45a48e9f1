import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spf_lite.data.sets.errors import CustomSetError
from spf_lite.data.sets.metadata import Line, decode, inside, read_csv, read_jsonl, read_txt

PATH = Path("metadata.jsonl")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_with_a_byte_order_mark_are_read(encoding: str) -> None:
    content = '{"file_name": "a.png", "base_text": "une é😎"}\n'.encode(encoding)
    assert list(read_jsonl(PATH, content)) == [Line("metadata.jsonl, line 1", "a.png", "une é😎")]
    table = "file_name,text\r\na.png,é\r\n".encode(encoding)
    assert list(read_csv(Path("m.csv"), table)) == [Line("m.csv, line 2", "a.png", caption="é")]


def test_what_is_no_unicode_is_refused() -> None:
    for content in (b"\xff\xfe\x00", b"\xe9", b"\xef\xbb\xbf\xff"):
        with pytest.raises(CustomSetError, match=r"metadata\.jsonl: cannot be read as UTF-8"):
            decode(content, PATH)
    with pytest.raises(CustomSetError, match=r"line 1: 'a .*' is not valid Unicode"):
        list(read_jsonl(PATH, rb'{"file_name": "a.png", "base_text": "a \ud83d"}'))


def test_only_line_ends_end_a_line() -> None:
    content = '{"base_text": "a\u2028b\x85c"}\r\n\r\n{"base_text": "d"}\r{"base_text": "e"}'.encode()
    lines = list(read_jsonl(PATH, content))
    assert [line.base_text for line in lines] == ["a\u2028b\x85c", "d", "e"]
    assert [line.where.split()[-1] for line in lines] == ["1", "3", "4"]


def test_letters_that_are_composed_differently_are_the_same() -> None:
    content = json.dumps({"base_text": "cafe\u0301", "phrases": ["caf\u00e9"]}).encode()
    (line,) = read_jsonl(PATH, content)
    assert line.base_text is not None and line.phrases == (line.base_text,)


def test_tables_are_read_with_their_line_numbers() -> None:
    table = 'file_name,base_text,target_text,replaces\na.png,"a man, sad",a beard,\nb.png,"a\nman",a beard,man\n'
    assert list(read_csv(Path("m.csv"), table.encode())) == [
        Line("m.csv, line 2", "a.png", "a man, sad", "a beard"),
        Line("m.csv, line 4", "b.png", "a\nman", "a beard", "man"),
    ]
    for bad, message in (
        ("file_name,text\na.png,b,c\n", r"m\.csv, line 2: more cells than columns"),
        ("file_name,phrases\n", r"m\.csv, line 1: 'phrases' are a list"),
        ('file_name,text\na.png,"b', r"m\.csv, line 2: not valid CSV"),
    ):
        with pytest.raises(CustomSetError, match=message):
            list(read_csv(Path("m.csv"), bad.encode()))


@pytest.mark.parametrize("name", ["../a.png", "/etc/hostname", "sub/../../a.png", "C:\\a.png", "link.png", "a\0b"])
def test_file_names_stay_inside_the_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(b"")
    (folder / "link.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(CustomSetError, match=r"line 1: .* (leads out of the folder|is no file name)"):
        inside(folder, name, "line 1")


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    assert inside(tmp_path, "link.png", "line 1").read_bytes() == b"1"
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(CustomSetError, match=r"line 1: 'loop\.png' (is no file name|leads out)"):
        inside(tmp_path, "loop.png", "line 1")


def test_every_picture_has_its_own_caption(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "a.mask.png", ".DS_Store", "._a.png", "notes.pdf.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CustomSetError, match=r"2 of 2 pictures have no caption: a\.png, b\.JPG\. Write"):
        list(read_txt(tmp_path))
    (tmp_path / "a.txt").write_text("a woman,\n sad\n", encoding="utf-8")
    (tmp_path / "b.TXT").write_text("a man", encoding="utf-8")
    assert [line for line, _ in read_txt(tmp_path)] == [
        Line(str(tmp_path / "a.txt"), "a.png", caption="a woman, sad", mask_file="a.mask.png"),
        Line(str(tmp_path / "b.TXT"), "b.JPG", caption="a man"),
    ]
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(CustomSetError, match=r"b\.TXT: two pictures have this caption, b\.JPG and b\.png"):
        list(read_txt(tmp_path))
    (tmp_path / "a.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(CustomSetError, match=r"a\.txt: the caption is empty"):
        list(read_txt(tmp_path))


@settings(max_examples=200, deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_lines_or_a_named_error(content: bytes) -> None:
    for read in (read_jsonl, read_csv):
        try:
            for line in read(Path("file"), content):
                assert line.where.startswith("file, line ")
        except CustomSetError as error:
            assert str(error).startswith("file")


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=30))
def test_no_name_leads_out_of_the_folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "set"
    try:
        path = inside(folder, name, "line 1")
    except CustomSetError:
        return
    assert os.path.commonpath([os.path.realpath(folder), os.path.realpath(path)]) == os.path.realpath(folder)
