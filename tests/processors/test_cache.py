import contextlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from processors import cache
from processors.cache import MOST_BLOCKS, Rows, compute_rows, content_key, rows_per_block
from utils.device import fits
from utils.errors import UserError

ONE = Accelerator(cpu=True)


def block(number: int) -> np.ndarray:
    return np.arange(3 - number % 2)[:, None] + 10.0 * number


def compute_blocks(folder, blocks, compute, accelerator=ONE) -> Rows:
    """Blocks of one item each, which is the block's number."""
    return compute_rows(folder, range(blocks), 1, lambda n: compute(n[0]), accelerator, "test")


def everything(rows: Rows) -> np.ndarray:
    return rows.take(np.arange(rows.first[-1])).numpy()


def missing_blocks(folder, blocks: int) -> list[int]:
    return [n for n in range(blocks) if not (folder / f"block-{n:05d}.npy").exists()]


def test_rows_are_those_of_all_blocks(tmp_path):
    rows = compute_blocks(tmp_path, 4, block)
    whole = np.concatenate([block(n) for n in range(4)])
    assert len(whole) == 10
    assert np.array_equal(everything(rows), whole)
    numbers = np.array([[9, 0, 3], [3, 5, 4]])  # of several blocks, out of order, one twice
    assert np.array_equal(rows.take(numbers), whole[numbers])


def test_rows_are_kept_in_a_device_s_memory_where_they_take_little_of_it(tmp_path, monkeypatch):
    mapped, numbers = compute_blocks(tmp_path, 4, block), np.array([9, 0, 3])
    assert mapped.resident is None  # a CPU's memory is where the mapping is read to anyway
    monkeypatch.setattr(cache, "fits", lambda nbytes, device: nbytes == 10 * 8)
    resident = compute_blocks(tmp_path, 4, block)
    assert resident.resident.shape == (10, 1)
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
        compute_blocks(tmp_path, 4, stop_at_two)
    assert missing_blocks(tmp_path, 4) == [2, 3]
    done: list[int] = []
    rows = compute_blocks(tmp_path, 4, lambda n: done.append(n) or block(n))
    assert done == [2, 3]
    assert len(everything(rows)) == 10
    assert list(tmp_path.glob(".*.part")) == []


def together(*calls) -> None:
    """Runs calls in threads of their own, to their ends."""
    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result(timeout=30)


def test_ranks_share_the_blocks_out(tmp_path, monkeypatch):
    barrier, said = threading.Barrier(2), {}
    rank = threading.local()

    def broadcast(value):  # as broadcasting does it
        if rank.number == 0:
            said["value"] = value
        barrier.wait()
        value = said["value"]
        barrier.wait()
        return value

    monkeypatch.setattr(cache, "broadcast_object_list", broadcast)
    done: dict[int, list[int]] = {0: [], 1: []}

    def run(number: int) -> None:
        rank.number = number
        accelerator = SimpleNamespace(
            process_index=number,
            num_processes=2,
            device=torch.device("cpu"),
            is_main_process=number == 0,
            wait_for_everyone=barrier.wait,
        )

        def compute(n):
            done[number].append(n)
            return block(n)

        compute_blocks(tmp_path, 5, compute, accelerator)
        assert missing_blocks(tmp_path, 5) == []

    together(lambda: run(0), lambda: run(1))
    assert done == {0: [0, 2, 4], 1: [1, 3]}


def test_a_second_run_waits_for_the_first_and_uses_its_result(tmp_path, capsys):
    begun, go_on = threading.Event(), threading.Event()
    second: list[int] = []

    def slow(number):
        begun.set()
        assert go_on.wait(30)
        return block(number)

    def run_second():
        assert begun.wait(30)
        threading.Timer(0.3, go_on.set).start()
        rows = compute_blocks(tmp_path, 3, lambda n: second.append(n) or block(n))
        assert len(everything(rows)) == 8

    together(lambda: compute_blocks(tmp_path, 3, slow), run_second)
    assert second == []
    assert f"{tmp_path}: another process is at work there since 20" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_whole_blocks(tmp_path, monkeypatch):
    compute_blocks(tmp_path, 2, block)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("utils.files.os.replace", full)
    with pytest.raises(UserError, match=r"cannot be written: No space.*cache_dir=DIR"):
        compute_blocks(tmp_path, 4, block)
    assert missing_blocks(tmp_path, 4) == [2, 3]
    assert list(tmp_path.glob(".*.part")) == []


def test_a_block_that_is_half_written_is_missing(tmp_path, monkeypatch):
    """Whatever ends the process there: nothing cleans up."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        compute_blocks(tmp_path, 2, block)
    assert missing_blocks(tmp_path, 2) == [0, 1]


def test_a_complete_cache_is_only_read(tmp_path):
    compute_blocks(tmp_path, 4, block)
    (tmp_path / ".lock").unlink(missing_ok=True)
    compute_blocks(tmp_path, 4, None)
    assert not (tmp_path / ".lock").exists()


def test_a_key_changes_with_any_part():
    key = content_key("abc", 5, [["a", 1, 2], ["b", 3, 4]])
    assert key == content_key("abc", 5, [["a", 1, 2], ["b", 3, 4]])
    others = [("abd", 5, []), ("abc", 6, []), ("abc", 5, [["a", 1, 2], ["b", 3, 5]]), ("abc5", [])]
    assert len({key, *(content_key(*other) for other in others)}) == 5


def test_a_large_cache_has_few_blocks(tmp_path, monkeypatch):
    """Each is an open file in every process, of which systems allow 1024."""
    assert [rows_per_block(items, 64) for items in (1, 64 * 256, 64 * 256 + 1)] == [64, 64, 65]
    assert -(-2_000_000 // rows_per_block(2_000_000, 64)) <= MOST_BLOCKS == 256
    monkeypatch.setattr(cache, "MOST_BLOCKS", 3)
    rows = compute_rows(tmp_path, range(10), 1, lambda n: np.array([*n])[:, None], ONE, "test")
    assert [len(block) for block in rows.blocks] == [4, 4, 2]
    assert everything(rows).ravel().tolist() == [*range(10)]


@pytest.mark.parametrize("error", [None, UserError("no such file")])
def test_the_first_process_goes_first_even_into_an_error(error):
    barrier, order = threading.Barrier(2), []

    def run(number: int) -> None:
        accelerator = SimpleNamespace(
            is_local_main_process=number == 0, wait_for_everyone=lambda: barrier.wait(10)
        )
        with contextlib.suppress(UserError), cache.main_first(accelerator):
            time.sleep(0.05 * (1 - number))
            order.append(number)
            if error:
                raise error

    together(lambda: run(1), lambda: run(0))
    assert order == [0, 1]
