import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import json_lines
from processors.cache import content_key
from processors.json_lines import JsonLines, Mapped, digest_of, keep, kept, mapped_lines

VALUES = [{"Uid": "é🐕", "Caption": None}, "a, b", 3.5, ["x", {"y": []}], ""]


@settings(deadline=None, max_examples=30)  # a busy machine is no fault
@given(st.lists(st.text() | st.integers() | st.dictionaries(st.text(), st.none() | st.text())))
def test_values_come_back_each_by_its_number(values):
    lines = JsonLines.of(values)
    assert list(lines) == values
    assert [lines[n] for n in range(-len(values), 0)] == values
    assert lines[1::2] == values[1::2]
    assert lines[1:-1] == values[1:-1]
    assert lines.digest == digest_of(lines) == content_key(values) == digest_of(values)
    with pytest.raises(IndexError):
        lines[len(values)]


def test_all_are_gone_through_in_order(monkeypatch):
    monkeypatch.setattr(json_lines, "AT_A_TIME", 2)
    assert list(JsonLines.of(VALUES)) == VALUES
    assert list(Mapped(type, JsonLines.of(VALUES))) == [type(value) for value in VALUES]


def test_another_process_maps_them_and_gets_no_copy(tmp_path):
    arrays, file = kept(tmp_path / "here", lambda: JsonLines.arrays_of(VALUES * 1000))
    lines = JsonLines(arrays, file)
    sent = pickle.dumps(lines)
    assert len(sent) < 500
    assert list(pickle.loads(sent)) == list(lines)
    assert list(pickle.loads(pickle.dumps(JsonLines.of(VALUES)))) == VALUES


def test_mapped_items_are_made_when_they_are_asked_for():
    made = []
    items = Mapped(lambda n: made.append(n) or -n, range(5))
    assert (len(items), items[3], made) == (5, -3, [3])


def numbers(value: int) -> dict[str, np.ndarray]:
    """Sums of 1001 values, of a number of bytes that the next array cannot begin at."""
    return {"a": np.full(1001, value, np.uint8), "b": np.array([value], np.int32)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: os.truncate(file, file.stat().st_size - 5),
        lambda file: os.truncate(file, 100),
        lambda file: os.truncate(file, 0),
        lambda file: file.write_bytes(b"x" * 5000),
        lambda file: file.write_bytes(file.read_bytes().replace(b"[1,", b"[0,", 1)),
        Path.unlink,
    ],
)
def test_what_is_damaged_is_made_anew(tmp_path, damage):
    file = tmp_path / "cache" / "here"
    assert kept(file, lambda: numbers(1))[1] == file
    arrays, _ = kept(file, lambda: pytest.fail("it was there"))
    assert (arrays["a"].sum(), arrays["b"][0], arrays["b"].dtype) == (1001, 1, np.int32)
    damage(file)
    for make in (lambda: numbers(2), lambda: pytest.fail("it was made")):
        arrays, _ = kept(file, make)
        assert (arrays["a"].sum(), arrays["b"][0]) == (2002, 2)
    assert [path.name for path in file.parent.iterdir()] == ["here"]


def test_two_at_once_both_have_it_whole(tmp_path):
    file, barrier = tmp_path / "here", threading.Barrier(2)
    first, _ = keep(file, numbers(0))

    def run(value: int) -> None:
        for _ in range(30):
            barrier.wait(30)
            for arrays, _ in (keep(file, numbers(value)), kept(file, lambda: None)):
                assert arrays["a"].sum() == 1001 * arrays["b"][0] > 0

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(run, value) for value in (1, 2)]:
            future.result(timeout=30)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert first["a"].sum() == first["b"][0] == 0, "what was mapped before stays"


def test_where_nothing_can_be_written_they_stay_in_memory(tmp_path):
    (tmp_path / "file").write_text("")
    arrays, file = kept(tmp_path / "file" / "here", lambda: numbers(1))
    assert file is None
    assert arrays["a"].sum() == 1001
    with pytest.raises((OSError, ValueError)):
        mapped_lines(tmp_path / "file" / "here")
