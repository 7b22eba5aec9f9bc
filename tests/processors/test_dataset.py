import itertools
import logging
import os
import signal

import numpy as np
import pytest
import torch

from processors.dataset import (
    SILENCE,
    MelDataset,
    distinct_clips,
    mel_frames,
    read_batch,
    read_segment,
    training_batches,
)
from processors.stream import ClipStream, Share
from utils.errors import UserError


@pytest.fixture
def paths(tmp_path):
    """Mels of 5, 8 and 20 frames; the value of a frame is its number plus 100 x the clip's."""
    for clip, frames in enumerate((5, 8, 20)):
        mel = np.broadcast_to(np.arange(frames) + 100 * clip, (2, frames))
        np.save(tmp_path / f"{clip}.npy", mel.astype(np.float32))
    return [tmp_path / f"{clip}.npy" for clip in range(3)]


def test_shorter_mels_end_in_silence_longer_ones_are_cut(paths):
    assert mel_frames(paths[2]) == 20
    short = read_segment(paths[0], 8)
    assert short.dtype == np.float32
    assert short[1].tolist() == [0, 1, 2, 3, 4, *[pytest.approx(SILENCE)] * 3]
    assert pytest.approx(np.log(1e-5)) == SILENCE
    assert read_segment(paths[2], 3, start=6)[0].tolist() == [206, 207, 208]
    assert read_segment(paths[2], 3, start=18)[0].tolist() == [218, 219, pytest.approx(SILENCE)]


def test_crops_cover_the_whole_clip_and_padding_none_of_it(paths):
    dataset = MelDataset(paths, ["a", "b", "c"], 8, ClipStream(3, seed=0))
    batch = dataset.__getitems__(list(range(300)))
    assert batch["mel"].shape == (300, 1, 2, 8)
    starts = {}
    for mel, name in zip(batch["mel"], batch["uid"], strict=True):
        starts.setdefault(name, set()).add(int(mel[0, 0, 0]))
    assert starts == {"a": {0}, "b": {100}, "c": set(range(200, 213))}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_go_on_where_they_were_left_however_many_workers_read(paths, workers):
    def batches(step, workers):
        dataset = MelDataset(paths, ["a", "b", "c"], 8, ClipStream(3, seed=0))
        return training_batches(dataset, Share(4, micro_batches=2), step, workers)

    alone = list(itertools.islice(batches(0, 0), 12))
    resumed = list(itertools.islice(batches(2, workers), 8))
    for ours, theirs in zip(resumed, alone[4:], strict=True):
        assert ours["uid"] == theirs["uid"]
        assert torch.equal(ours["mel"], theirs["mel"])


def test_mels_of_different_numbers_of_bands_are_no_batch(paths):
    np.save(paths[1], np.zeros((3, 8), np.float32))
    with pytest.raises(UserError, match=r"1\.npy: holds a mel of 3 bands, and .*0\.npy of 2"):
        read_batch(paths, 8)


def test_several_captions_of_a_clip_are_one_clip():
    records = [
        {"Dataset": "A", "Uid": "x", "Caption": "one"},
        {"Dataset": "B", "Uid": "x", "Caption": "two"},
        {"Dataset": "A", "Uid": "x", "Caption": "three"},
    ]
    assert [(clip["Dataset"], clip["Uid"]) for clip in distinct_clips(records)] == [
        ("A", "x"),
        ("B", "x"),
    ]


class Dying(MelDataset):
    """Its worker is killed at a position, as the system does for lack of memory."""

    def __getitems__(self, positions: list[int]) -> dict:
        if torch.utils.data.get_worker_info() and positions[0] >= 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitems__(positions)


def test_where_a_worker_is_killed_the_same_batches_follow_without_it(paths, monkeypatch, caplog):
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    logging.getLogger("arion").propagate = True

    def batches(kind, workers):
        dataset = kind(paths, ["a", "b", "c"], 8, ClipStream(3, seed=0))
        return list(itertools.islice(training_batches(dataset, Share(4), 0, workers), 8))

    for ours, theirs in zip(batches(Dying, 2), batches(MelDataset, 0), strict=True):
        assert ours["uid"] == theirs["uid"]
        assert torch.equal(ours["mel"], theirs["mel"])
    assert caplog.text.count("a process that loads batches was lost (") == 1
    assert "train.num_workers=0" in caplog.text


def test_a_damaged_mel_is_one_line_from_a_worker_as_well(paths):
    paths[1].write_bytes(b"")
    dataset = MelDataset(paths, ["a", "b", "c"], 8, ClipStream(3, seed=0))
    with pytest.raises(UserError) as caught:
        list(itertools.islice(training_batches(dataset, Share(4), 0, 2), 3))
    assert str(caught.value).startswith(f"{paths[1]}: not a whole mel file")
    assert "Traceback" not in str(caught.value)


def test_batches_need_no_shared_memory(paths):
    """Tensors of a worker would lie in /dev/shm, of which containers have 64 MB."""
    dataset = MelDataset(paths, ["a", "b", "c"], 8, ClipStream(3, seed=0))
    assert isinstance(dataset.__getitems__([0])["mel"], np.ndarray)
