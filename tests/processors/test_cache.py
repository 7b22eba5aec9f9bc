import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from processors import cache
from processors.cache import (
    ResidentRows,
    Rows,
    block_path,
    compute_blocks,
    content_key,
    missing_blocks,
    open_rows,
)
from utils.device import fits


class Rank:
    """As much of an accelerator as a cache needs; several ranks are threads with a barrier."""

    def __init__(self, number: int = 0, count: int = 1, barrier=None) -> None:
        self.process_index, self.num_processes = number, count
        self.is_main_process, self.barrier = number == 0, barrier

    def wait_for_everyone(self) -> None:
        if self.barrier:
            self.barrier.wait()


def block(number: int) -> np.ndarray:
    return np.arange(3 - number % 2)[:, None] + 10.0 * number


def test_rows_are_those_of_all_blocks(tmp_path):
    compute_blocks(tmp_path, 4, block, Accelerator(cpu=True), "test")
    rows, whole = Rows(tmp_path, 4), np.concatenate([block(n) for n in range(4)])
    assert len(rows.all()) == len(whole) == 10
    assert np.array_equal(rows.all(), whole)
    assert rows.nbytes == whole.nbytes
    numbers = np.array([[9, 0, 3], [3, 5, 4]])  # of several blocks, out of order, one twice
    assert np.array_equal(rows.take(numbers), whole[numbers])


def test_rows_are_kept_in_a_device_s_memory_where_they_take_little_of_it(tmp_path, monkeypatch):
    compute_blocks(tmp_path, 4, block, Accelerator(cpu=True), "test")
    cpu, numbers = torch.device("cpu"), np.array([9, 0, 3])
    mapped = open_rows(tmp_path, 4, cpu)
    assert isinstance(mapped, Rows)  # a CPU's memory is where the mapping is read to anyway
    monkeypatch.setattr(cache, "fits", lambda nbytes, device: nbytes == mapped.nbytes)
    resident = open_rows(tmp_path, 4, cpu)
    assert isinstance(resident, ResidentRows)
    assert torch.equal(resident.take(numbers), mapped.take(numbers))


def test_a_twentieth_of_a_gpu_s_memory_is_little(monkeypatch):
    gpu = SimpleNamespace(total_memory=1000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    assert fits(50, torch.device("cuda"))
    assert not fits(51, torch.device("cuda"))
    assert not fits(1, torch.device("cpu"))


def test_a_stopped_cache_goes_on_with_what_is_missing(tmp_path):
    def stop_at_two(number):
        if number == 2:
            raise KeyboardInterrupt
        return block(number)

    with pytest.raises(KeyboardInterrupt):
        compute_blocks(tmp_path, 4, stop_at_two, Rank(), "test")
    assert missing_blocks(tmp_path, 4) == [2, 3]
    done: list[int] = []
    compute_blocks(tmp_path, 4, lambda n: done.append(n) or block(n), Rank(), "test")
    assert done == [2, 3]
    assert np.array_equal(Rows(tmp_path, 4).all(), np.concatenate([block(n) for n in range(4)]))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        block_path(tmp_path, n).name for n in range(4)
    ]


def test_ranks_share_the_blocks_out(tmp_path):
    """Each block is computed once, whichever rank is ahead."""
    done: dict[int, list[int]] = {0: [], 1: []}
    barrier = threading.Barrier(2, timeout=60)

    def compute(rank: int) -> None:
        def compute_block(number: int) -> np.ndarray:
            done[rank].append(number)
            return block(number)

        compute_blocks(tmp_path, 5, compute_block, Rank(rank, 2, barrier), "test")
        assert missing_blocks(tmp_path, 5) == []  # both go on only when all is there

    with ThreadPoolExecutor(2) as ranks:
        list(ranks.map(compute, range(2)))
    assert done == {0: [0, 2, 4], 1: [1, 3]}
    assert np.array_equal(Rows(tmp_path, 5).all(), np.concatenate([block(n) for n in range(5)]))


def test_a_key_changes_with_any_part():
    key = content_key("abc", 5, [["a", 1, 2], ["b", 3, 4]])
    assert key == content_key("abc", 5, [["a", 1, 2], ["b", 3, 4]])
    others = [("abd", 5, []), ("abc", 6, []), ("abc", 5, [["a", 1, 2], ["b", 3, 5]]), ("abc5", [])]
    assert len({key, *(content_key(*other) for other in others)}) == 5
