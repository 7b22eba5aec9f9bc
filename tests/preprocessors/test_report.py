"""What the report says of sounds that are kept, and what is said of data sets later on."""

import json
import os

import numpy as np
import pytest
import soundfile

from preprocessors.prepare import prepare
from processors.mel import check_mel_settings
from processors.metadata import dataset_dir, load_split
from tests.sounds import (
    RATE,
    captions_csv,
    make_config,
    make_mels_in_process,
    noise,
    write_sound,
)
from utils.audio import write_wav
from utils.checkpoint import file_hash
from utils.errors import UserError


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    make_mels_in_process(monkeypatch)


def run(config) -> dict:
    """Prepares the config's data set; returns the report."""
    print(*prepare(config, 1))
    path = f"{config.preprocess.processed_dir}/Sounds/preprocess_report.json"
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def test_what_is_said_of_levels_lengths_captions_and_twins(tmp_path, capsys):
    """Each kind of remark, by name in the report and in a line for the terminal."""
    rows = ["wide", "twin a", "twin b", "loud", "overshoot", "antiphase", "clipped", "streamed"]
    text = "file,caption\n" + "".join(f"{n}.wav,Caption of {n}\n" for n in rows)
    wavs = captions_csv(tmp_path / "Sounds", text) / "wav"
    for seed, name in (("twin a", 1), ("twin b", 1)):
        write_sound(wavs / f"{seed}.wav", name)
    left, right = noise(0.2, 2), noise(0.2, 3)
    for name, wav in {
        "wide": np.stack([left, 0.8 * right - 0.4 * left], axis=1),
        "antiphase": np.stack([left, -left], axis=1),
        "loud": left * 4000,
        "overshoot": left * 2.8,
        "clipped": np.clip(left * 3, -1, 1),
    }.items():
        soundfile.write(wavs / f"{name}.wav", wav, RATE, subtype="FLOAT")
    write_wav(wavs / "streamed.wav", noise(0.2, 5), RATE)
    content = bytearray((wavs / "streamed.wav").read_bytes())
    content[4:8] = content[40:44] = bytes(4)
    (wavs / "streamed.wav").write_bytes(content)
    report = run(make_config(tmp_path, "preprocess.valid_fraction=0"))
    found = {name: remark for remark, e in report["remarks"].items() for name in e["names"]}
    starts = {
        "wide": "channels that lose more than 3 dB",
        "antiphase": "channels that lose more than 10 dB",
        "loud": "peak above 2 x full scale: scaled",
        "overshoot": "beyond full scale",
        "streamed": "longer than the file states",
    }
    assert all(found[name].startswith(start) for name, start in starts.items()), found
    assert (
        "clipped" in report["remarks"][next(r for r in report["remarks"] if "0.99" in r)]["names"]
    )
    twins = {"uid": "twin b", "split": "train", "also_in": "train", "removed": False}
    assert report["same_sounds"] == [twins]
    printed = capsys.readouterr().out
    assert "kept, but channels that lose more than 3 dB in their mono mix: 1" in printed
    assert "clips with the very sound of another in train: 1 (left there)" in printed
    assert "100% of the clips are shorter than preprocess.segment_frames (624 frames" in printed
    assert "train with preprocess.segment_frames=16 (0.26 s)" in printed
    assert "8 different, 8 used once; 11 words, 9 of them in fewer than 5 clips" in printed
    assert "use the same word for the same sound" in printed


def test_long_clips_and_common_words_get_no_advice(tmp_path, capsys):
    text = "file,caption\n" + "".join(f"{i}.wav,Rain falls\n" for i in range(6))
    folder = captions_csv(tmp_path / "Sounds", text)
    for seed in range(6):
        write_sound(folder / "wav" / f"{seed}.wav", seed, seconds=0.5)
    config = make_config(tmp_path, "preprocess.segment_frames=32", "preprocess.valid_fraction=0")
    run(config)
    printed = capsys.readouterr().out
    assert "segment_frames=" not in printed
    assert "learnt" not in printed
    assert "6 clips kept" in printed


def test_the_length_to_train_with_is_never_above_the_longest(tmp_path, capsys):
    """Of few clips, a tenth that is extrapolated would be."""
    text = "file,caption\n" + "".join(f"{i}.wav,Rain falls\n" for i in range(3))
    folder = captions_csv(tmp_path / "Sounds", text)
    for seed, seconds in enumerate((0.5, 0.5, 2.0)):
        write_sound(folder / "wav" / f"{seed}.wav", seed, seconds=seconds)
    config = make_config(tmp_path, "preprocess.segment_frames=1024", "preprocess.valid_fraction=0")
    longest = 2.0 * RATE / config.preprocess.hop_size
    assert run(config)["lengths"]["suggested_segment_frames"] < longest


def test_sounds_beside_audiocaps_that_no_csv_names(tmp_path):
    """Of a split that the user wrote."""
    folder = tmp_path / "Sounds"
    (folder / "wav").mkdir(parents=True)
    head = "audiocap_id,youtube_id,start_time,caption\n"
    (folder / "train.csv").write_text(head + "1,abcdefghijk,0,Rain falls\n")
    record = {"Dataset": "Sounds", "Uid": "dog", "Caption": "A dog barks"}
    (folder / "test.json").write_text(json.dumps([record]))
    for seed, name in enumerate(("1", "dog")):
        write_sound(folder / "wav" / f"{name}.wav", seed)
    report = run(make_config(tmp_path, "preprocess.valid_fraction=0"))
    assert (report["kept"], report["naming"]) == (2, {"<audiocap_id>": 1})


def test_a_file_whose_name_is_not_utf8_is_left_out_by_name(tmp_path):
    folder = tmp_path / "Sounds"
    write_sound(folder / "wav" / "dog.wav", 0)
    write_sound(folder / "wav" / "cat.wav", 1)
    os.rename(folder / "wav" / "cat.wav", os.fsencode(folder / "wav") + b"/caf\xe9.wav")
    report = run(make_config(tmp_path))
    assert report["kept"] == 1
    assert report["skipped"]["name is not UTF-8"]["names"] == ["wav/caf\\xe9.wav"]


def test_one_shots_among_longer_sounds_get_a_data_set_of_their_own(tmp_path, capsys):
    text = "file,caption\n" + "".join(f"{i}.wav,Rain falls\n" for i in range(6))
    folder = captions_csv(tmp_path / "Sounds", text)
    for seed in range(6):
        write_sound(folder / "wav" / f"{seed}.wav", seed, seconds=0.1 if seed < 4 else 2)
    run(make_config(tmp_path, "preprocess.segment_frames=64", "preprocess.valid_fraction=0"))
    printed = capsys.readouterr().out
    assert "67% of the clips are shorter than preprocess.segment_frames (64 frames" in printed
    assert "prepare the short ones as a data set of their own, with fewer frames" in printed


@pytest.fixture
def config(tmp_path):
    """Two own sounds."""
    folder = captions_csv(tmp_path / "Sounds", "file,caption\na.wav,Rain\nb.wav,A dog barks\n")
    for seed, name in enumerate("ab"):
        write_sound(folder / "wav" / f"{name}.wav", seed)
    return make_config(tmp_path, "preprocess.valid_fraction=0")


def test_a_folder_that_is_the_data_set_itself_and_a_mistyped_data_set(config, tmp_path):
    itself = f"{tmp_path}/Sounds is a data set itself: give dataset=Sounds"
    itself += f" preprocess.processed_dir={tmp_path}"
    wrong = {f"preprocess.processed_dir={tmp_path}/Sounds": itself, "dataset=Sound": ""}
    for setting, said in wrong.items():
        other = make_config(tmp_path, setting)
        with pytest.raises(UserError, match="there is no folder") as caught:
            run(other)
        assert f"; {said or 'nearest: Sounds'}; sounds elsewhere" in str(caught.value)
        with pytest.raises(UserError, match="the mels are not ready") as caught:
            check_mel_settings(dataset_dir(other, other.dataset[0]), other.preprocess.mel)
        assert f"; {said or 'nearest: Sounds'}; to make" in str(caught.value)


def test_captions_that_changed_since_are_told_at_training(config, tmp_path, caplog):
    captions = tmp_path / "Sounds" / "captions.csv"
    assert run(config)["made_of"] == {"captions.csv": file_hash(captions)}
    captions.touch()  # later, and the same
    load_split(config, "train")
    assert caplog.messages == []
    captions.write_text(captions.read_text().replace("dog", "cat"))
    load_split(config, "train")
    load_split(config, "valid")
    (line,) = caplog.messages
    assert line.startswith(f"{captions} has changed since Sounds was made of it; to take it as")
    assert "run: sh egs/tta/preprocess/run_preprocess.sh" in line
    run(config)
    load_split(config, "train")
    assert len(caplog.messages) == 1
    (tmp_path / "Sounds" / "preprocess_report.json").write_text("{")
    load_split(config, "train")
    assert len(caplog.messages) == 1
