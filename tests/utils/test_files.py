import os
import subprocess
import sys
import time

import pytest

from utils.errors import UserError
from utils.files import one_writer, remove_unfinished, write_bytes, write_text


def test_equal_text_leaves_the_file_alone(tmp_path):
    write_text(tmp_path / "a.json", "[]\n")
    before = (tmp_path / "a.json").stat()
    write_text(tmp_path / "a.json", "[]\n")
    after = (tmp_path / "a.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    write_text(tmp_path / "a.json", "é\n")
    assert (tmp_path / "a.json").read_bytes() == "é\n".encode()


def test_a_name_as_long_as_a_name_may_be(tmp_path):
    write_bytes(tmp_path / ("x" * 255), b"1")
    assert (tmp_path / ("x" * 255)).read_bytes() == b"1"


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a", b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "a", b"after")
    assert (tmp_path / "a").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a"]


def test_only_our_own_unfinished_files_are_removed(tmp_path):
    theirs = ["song.part", ".part", "a.npy", ".hidden.part"]
    for name in (*theirs, "deep/.0123456789abcdef.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([*theirs, "deep"])


HOLDER = """
import sys, time
from pathlib import Path
from utils.files import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("killed", [False, True])
def test_one_writer_at_a_time_and_a_killed_one_holds_nothing(tmp_path, capsys, killed):
    seconds = "60" if killed else "1"
    command = [sys.executable, "-c", HOLDER, tmp_path / "new" / "folder", seconds]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        start = time.monotonic()
        if killed:
            holder.kill()
            holder.wait()
        with one_writer(tmp_path / "new" / "folder"):
            waited = time.monotonic() - start
        assert holder.wait() == (-9 if killed else 0)
    assert waited < 30
    said = "another process is at work there since 20"
    assert (said in capsys.readouterr().err) != killed


def test_an_error_inside_names_its_file(tmp_path):
    with (
        pytest.raises(UserError, match=r"x/y: cannot be written: No such file"),
        one_writer(tmp_path),
    ):
        (tmp_path / "x" / "y").write_text("")
    with pytest.raises(UserError, match=r"^as it is$"), one_writer(tmp_path):
        raise UserError("as it is")
    with one_writer(tmp_path):  # neither left the folder held
        pass
