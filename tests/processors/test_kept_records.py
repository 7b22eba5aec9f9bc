import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from processors import kept_records as kept
from processors.dataset import distinct_clips
from processors.examples import NO_SOURCE, find_examples
from processors.json_lines import JsonLines
from processors.kept_records import captioned, kept_records
from processors.metadata import load_split, mel_path
from tests.sounds import make_config
from utils.errors import UserError

ONE = Accelerator(cpu=True)
LONG_AGO = 1e9
UIDS = ["b", "a/1", "b", "a/2", "gone", "c"]


@pytest.fixture
def config(tmp_path):
    """A data set of long ago."""
    config = make_config(tmp_path)
    (tmp_path / "Sounds" / "mel" / "a").mkdir(parents=True)
    write_records(tmp_path, UIDS)
    for uid in {*UIDS} - {"gone"}:
        np.save(mel_path(config, {"Dataset": "Sounds", "Uid": uid}), np.zeros((2, 3), np.float32))
    settle(tmp_path)
    return config


def write_records(root: Path, uids: list[str]) -> None:
    records = [
        {"Uid": uid, "Caption": f"sound {n}", "Dataset": "Sounds", "N": n}
        for n, uid in enumerate(uids)
    ]
    (root / "Sounds" / "train.json").write_text(json.dumps(records))


def settle(root: Path, then: float = LONG_AGO) -> None:
    """As if all had been written then."""
    for folder in ("Sounds/train.json", "Sounds/mel", "Sounds/mel/a"):
        os.utime(root / folder, (then, then))


def records(config, form=list):
    return kept_records(config, "train", ONE, form)


def test_they_are_those_of_the_files_and_are_read_once(config, tmp_path, monkeypatch, caplog):
    for form in (list, distinct_clips):
        made = records(config, form)
        assert list(made) == form(load_split(config, "train"))
        assert len(made) == {list: 5, distinct_clips: 4}[form]
    monkeypatch.setattr(kept, "usable_records", None)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert list(records(config)) == load_as_plain(config, monkeypatch)
    assert caplog.messages.count("train: 1 records left out, their clips have no mel") == 1


def load_as_plain(config, monkeypatch) -> list[dict]:
    monkeypatch.undo()
    logging.disable()
    try:
        return load_split(config, "train")
    finally:
        logging.disable(logging.NOTSET)


def rewrite(root, config):
    write_records(root, [*UIDS[::-1]])  # as many bytes


def remove_a_mel(root, config):
    mel_path(config, {"Dataset": "Sounds", "Uid": "a/2"}).unlink()


def add_a_mel(root, config):
    np.save(root / "Sounds/mel/gone.npy", np.zeros((2, 3), np.float32))


def replace_the_folder(root, config):
    (root / "Sounds/mel/a").rename(root / "Sounds/mel/z")


@pytest.mark.parametrize("change", [rewrite, remove_a_mel, add_a_mel, replace_the_folder])
def test_a_change_is_noticed(config, tmp_path, change):
    before = list(records(config))
    change(tmp_path, config)
    settle_what_changed(tmp_path)
    after = list(records(config))
    assert after == load_split(config, "train") != before
    assert list(records(config)) == after


def settle_what_changed(root: Path) -> None:
    """As if what is another now had changed some time ago; the rest keeps its time."""
    for path in (root / "Sounds").rglob("*"):
        if path.stat().st_mtime != LONG_AGO:
            os.utime(path, (LONG_AGO + 5, LONG_AGO + 5))


def test_what_has_only_just_changed_is_not_kept(config, tmp_path):
    """Another change could have the same time."""
    settle(tmp_path, time.time())
    records(config)
    assert not (tmp_path / "cache").exists()
    settle(tmp_path)
    records(config)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_faults_are_told_each_time(config, tmp_path):
    config.dataset.append("Other")
    for _ in range(2):
        with pytest.raises(UserError, match=r"Other/train.json: no such file"):
            records(config)
    config.dataset.pop()
    (tmp_path / "Sounds/train.json").write_text('[{"Dataset": "Sounds", "Uid": "b"}]')
    settle(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match=r"train.json: record 1: Caption is missing"):
            records(config)
    (tmp_path / "Sounds/train.json").write_text(
        '[{"Dataset": "Sounds", "Uid": "b", "Caption": null}]'
    )
    settle(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match="1 of 1 records have no caption, such as 'b'"):
            records(config, captioned)


def test_a_folder_that_cannot_be_written_is_no_hindrance(config, tmp_path):
    (tmp_path / "cache").write_text("")
    assert list(records(config)) == load_split(config, "train")


def test_numbers_lead_to_each_record_s_own_sounds_and_text(tmp_path):
    def record(uid, caption, **more):
        return {"Dataset": "D", "Uid": uid, "Caption": caption, **more}

    train = [record("b", "two"), record("a", "one"), record("c", "two", Source="d", Extra=1)]
    valid = [record("b", None), {**record("b", "three"), "Dataset": "E"}]
    for given in ((train, valid), (JsonLines.of(train), JsonLines.of(valid))):
        found = find_examples(tmp_path, *given, ONE)
        assert found.captions[0] == ""
        assert [*found.captions] == sorted({*found.captions})
        assert len(found.clips) == len({(c["Dataset"], c["Uid"]) for c in found.clips}) == 5
        for number, one in enumerate(train + valid):
            clip = found.clips[found.clip[number]]
            assert clip == {"Dataset": one["Dataset"], "Uid": one["Uid"]}
            assert found.captions[found.caption[number]] == (one["Caption"] or "")
        assert (found.source == NO_SOURCE).tolist() == [True, True, False, True, True]
        assert found.clips[found.source[2]] == {"Dataset": "D", "Uid": "d"}
    assert len(list(tmp_path.iterdir())) == 2, "found again by what the records are"
