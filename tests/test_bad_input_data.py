"""The rows on data of the recipe page's table of bad input, each by itself and all at once."""

import csv
import io
import json
import os
import struct

import numpy as np
import pytest
import soundfile

from preprocessors.prepare import prepare
from processors.metadata import load_split, mel_path
from tests.sounds import (
    RATE,
    captions_csv,
    make_config,
    make_mels_in_process,
    noise,
    write_coded,
    write_sound,
)
from utils.audio import write_wav
from utils.errors import UserError


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    make_mels_in_process(monkeypatch)


def run(config, num_workers=1) -> dict:
    list(prepare(config, num_workers))
    report = f"{config.preprocess.processed_dir}/Sounds/preprocess_report.json"
    with open(report, encoding="utf-8") as file:
        return json.load(file)


def cut(path, *arguments, **options):
    soundfile.write(path, *arguments, **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damaged_rate(path):
    write_wav(path, noise(1), RATE)
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", 7)
    path.write_bytes(content)


def with_sample(value):
    wav = noise(0.3)
    wav[1234] = value
    return lambda path: soundfile.write(path, wav, RATE, subtype="FLOAT")


def written(rate=RATE, channels=1, seconds=0.3, **options):
    wav = noise(seconds, rate=rate)
    return lambda path: soundfile.write(
        path, np.repeat(wav[:, None], channels, axis=1), rate, **options
    )


def folder_with_a_sound(path):
    path.mkdir()
    write_sound(path / "unlisted.wav")


def link_out(path):
    path.symlink_to(write_sound(path.parents[3] / "outside" / "secret.wav", 4))


def constant(path):
    write_wav(path, np.full(8000, 0.3), RATE)


def antiphase(path):
    soundfile.write(path, np.stack([noise(0.3), -noise(0.3)], axis=1), RATE)


def streamed(path):
    """As recorders and pipes write it: the data's size is 0."""
    write_wav(path, noise(0.3, 5), RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = bytes(4)
    path.write_bytes(content)


def coded(path):
    write_coded(path, noise(0.5, rate=48000))


def forbidden(path):
    write_sound(path)
    path.chmod(0)


GOOD = {
    "8 bit.wav": written(subtype="PCM_U8"),
    "24 bit.wav": written(subtype="PCM_24"),
    "float.wav": written(subtype="FLOAT"),
    "double.wav": written(subtype="DOUBLE"),
    **{f"{rate} Hz.wav": written(rate) for rate in (8000, 11025, 44100, 96000, 192000)},
    **{f"{count} channels.wav": written(channels=count) for count in range(1, 9)},
    "stereo at 96 kHz.flac": written(96000, channels=2),
    "50 ms.wav": written(seconds=0.05),
    "10 minutes.wav": written(8000, seconds=600, subtype="PCM_U8"),
    "an mp3 named.wav": written(format="MP3"),
    "clipped.wav": lambda path: write_wav(path, noise(0.3) * 9, RATE),
    "beyond full scale.wav": lambda path: soundfile.write(
        path, noise(0.3) * 9, RATE, subtype="FLOAT"
    ),
    "two words.wav": write_sound,
    "quo'te\"s.wav": write_sound,
    "line\nbreak.wav": write_sound,
    "élève.wav": write_sound,
    "🐕.wav": write_sound,
    "-dash.wav": write_sound,
    "--help.wav": write_sound,
    "$(touch x);`touch y`.wav": write_sound,
    "link out.wav": link_out,
    "antiphase.wav": antiphase,
    "streamed.wav": streamed,
    **{f"from a video.{suffix}": coded for suffix in ("m4a", "webm", "mp4", "opus")},
    "twice.wav": write_sound,
    "twice.ogg": written(44100),
}
BAD = {
    "empty.wav": (lambda path: path.touch(), "empty file"),
    "no samples.wav": (lambda path: soundfile.write(path, np.zeros(0), RATE), "empty file"),
    "text.wav": (lambda path: path.write_text("words " * 99), "not decodable"),
    "cut.wav": (lambda path: cut(path, noise(1), RATE), "truncated"),
    "cut.ogg": (lambda path: cut(path, noise(2), RATE), "truncated"),
    "cut.mp3": (lambda path: cut(path, noise(2), RATE), "truncated"),
    "cut.flac": (lambda path: cut(path, noise(2), RATE), "truncated"),
    "silent.wav": (lambda path: write_wav(path, np.zeros(8000), RATE), "silent"),
    "nan.wav": (with_sample(np.nan), "NaN or infinite samples"),
    "infinite.wav": (with_sample(-np.inf), "NaN or infinite samples"),
    "20 ms.wav": (written(seconds=0.02), "too short"),
    "rate.wav": (damaged_rate, "sample rate out of range"),
    "folder.wav": (folder_with_a_sound, "not a file"),
    "pipe.wav": (os.mkfifo, "not a file"),
    "absent.wav": (lambda path: None, "missing"),
    "constant.wav": (constant, "silent"),
    "broken link.wav": (lambda path: path.symlink_to("absent.wav"), "missing"),
    "../../outside/secret.wav": (lambda path: None, "outside the folder"),
    "/etc/hostname": (lambda path: None, "outside the folder"),
}
if os.geteuid() != 0:  # who may read anything meets no such file
    BAD["forbidden.wav"] = (forbidden, "no permission")
BAD_ROWS = {  # rows that say nothing of use about a good sound
    ("two words.wav", "", "train"): "empty caption",
    ("two words.wav", "long " * 5000, "train"): "caption of more than 10000 characters",
    ("two words.wav", "fine", "sometimes"): "split that is not train, valid, val or test",
    ("two words.wav", "fine"): "wrong number of columns (a comma outside quotes?)",
    ("two words.wav", "fine", "train", "x"): "wrong number of columns (a comma outside quotes?)",
    ("nul\0.wav", "fine", "train"): "not a file name",
}


def make_folder(folder, names) -> None:
    wavs = folder / "wav"
    wavs.mkdir(parents=True)
    for name in names:
        make = GOOD[name] if name in GOOD else BAD[name][0]
        make(wavs / name)


def write_captions(folder, rows) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("file", "caption", "split"), *rows])
    captions_csv(folder, "\ufeff" + table.getvalue())


def everything(root) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_all_of_it_at_once(tmp_path):
    """Every good clip is prepared, every bad one is in the report with its reason."""
    folder = tmp_path / "data" / "Sounds"
    make_folder(folder, [*GOOD, *BAD])
    splits = ("train", "valid", "train", "val", "test")
    rows = [(n, f"Caption of {n!r}", splits[i % 5]) for i, n in enumerate([*GOOD, *BAD])]
    leak = [("8 bit.wav", "also for validation", "valid")]
    write_captions(folder, [*rows, *BAD_ROWS, *leak])
    before = everything(tmp_path)
    config = make_config(tmp_path / "data")
    report = run(config, num_workers=2)

    found = {
        (name.removeprefix("wav/"), reason)
        for reason, entry in report["skipped"].items()
        for name in entry["names"]
        if "captions.csv line" not in name
    }
    assert found == {(name, reason) for name, (_, reason) in BAD.items()} | {
        ("nul\0.wav", "not a file name")
    }
    assert set(BAD_ROWS.values()) <= report["skipped"].keys()

    records = [r for split in ("train", "valid", "test") for r in load_split(config, split)]
    several = {name for name in GOOD if name.startswith(("twice.", "from a video."))}
    uids = {name.rsplit(".", 1)[0] for name in GOOD.keys() - several} | several
    assert {record["Uid"] for record in records} == uids
    assert len(records) == len(GOOD)
    for record in records:
        mel = np.load(mel_path(config, record))
        assert mel.dtype == np.float32
        assert np.isfinite(mel).all()
    assert report["kept"] == len(GOOD)
    clipped = next(reason for reason in report["remarks"] if reason.startswith("clipped: 0.1%"))
    assert report["remarks"][clipped]["names"] == ["beyond full scale", "clipped"]
    assert report["leaks"] == [
        {"uid": "8 bit", "split": "train", "also_in": "valid", "removed": True}
    ]
    made = everything(tmp_path) - before
    assert all(name.startswith("data/Sounds/") for name in made)
    kinds = ("mel", "train.json", "valid.json", "test.json", "preprocess_report.json")
    assert {name.split("/")[2] for name in made} == set(kinds)


@pytest.mark.parametrize("name", [name for name in GOOD if name != "10 minutes.wav"])
def test_a_good_file(tmp_path, name):
    make_folder(tmp_path / "Sounds", [name])
    write_captions(tmp_path / "Sounds", [(name, "A sound", "train")])
    config = make_config(tmp_path)
    report = run(config)
    assert (report["kept"], report["skipped"]) == (1, {})
    (record,) = load_split(config, "train")
    mel = np.load(mel_path(config, record))
    assert np.isfinite(mel).all()
    assert mel.max() > -5  # there is a sound in it


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file(tmp_path, name):
    folder = tmp_path / "data" / "Sounds"
    make_folder(folder, [name])
    write_sound(folder / "wav" / "good.wav")
    write_captions(folder, [(name, "A sound", "train"), ("good.wav", "A sound", "train")])
    config = make_config(tmp_path / "data")
    report = run(config)
    assert [record["Uid"] for record in load_split(config, "train")] == ["good"]
    (reason,) = report["skipped"]
    assert reason == BAD[name][1]


@pytest.mark.parametrize("row", BAD_ROWS, ids=BAD_ROWS.values())
def test_a_bad_row(tmp_path, row):
    make_folder(tmp_path / "Sounds", ["two words.wav", "float.wav"])
    write_captions(tmp_path / "Sounds", [row, ("float.wav", "A sound", "train")])
    report = run(make_config(tmp_path))
    assert list(report["skipped"]) == [BAD_ROWS[row]]
    assert report["kept"] == 1


GOOD_RECORD = {"Dataset": "Sounds", "Uid": "a", "Caption": "Rain"}
WHOLE_FILES = {
    "empty CSV": ("captions.csv", b"", "is empty"),
    "CSV with a header only": ("captions.csv", b"file,caption\n", "no rows"),
    "CSV of bytes": ("captions.csv", bytes(range(256)), "not UTF-8"),
    "CSV with an open quote": ("captions.csv", b'file,caption\na.wav,"Rain\n', "not a proper CSV"),
    "CSV without its columns": (
        "captions.csv",
        b"name;text\na.wav;Rain\n",
        "file, caption missing",
    ),
    "AudioCaps without its columns": ("train.csv", b"id,caption\n1,Rain\n", "youtube_id"),
    "empty JSON": ("train.json", b"", "not valid JSON"),
    "broken JSON": ("train.json", b'[{"Uid": ', "not valid JSON"),
    "JSON of bytes": ("valid.json", bytes(range(256)), "not valid JSON"),
    "JSON of another form": ("test.json", b'{"a": 1}', "must hold a list"),
    "JSON with a number for text": ("train.json", {**GOOD_RECORD, "Caption": 7}, "must be text"),
    "JSON without a Uid": ("train.json", {"Dataset": "Sounds", "Caption": "x"}, "Uid is missing"),
    "JSON with an empty caption": ("train.json", {**GOOD_RECORD, "Caption": ""}, "not be empty"),
    "JSON with half a character": ("train.json", {**GOOD_RECORD, "Caption": "\ud800"}, "surrogate"),
    "JSON of another data set": ("train.json", {**GOOD_RECORD, "Dataset": "B"}, "must be 'Sounds'"),
    "Uid that leads out": ("train.json", {**GOOD_RECORD, "Uid": "../../x"}, "must not hold"),
    "Uid from the root": ("train.json", {**GOOD_RECORD, "Uid": "/x"}, "relative path"),
}


@pytest.mark.parametrize("case", WHOLE_FILES)
def test_a_bad_file_of_captions_stops_before_any_work(tmp_path, case):
    name, content, message = WHOLE_FILES[case]
    write_sound(tmp_path / "Sounds" / "wav" / "a.wav")
    content = content if isinstance(content, bytes) else json.dumps([content]).encode()
    (tmp_path / "Sounds" / name).write_bytes(content)
    before = everything(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        run(make_config(tmp_path))
    assert name in str(caught.value)
    assert everything(tmp_path) == before


def test_a_byte_order_mark_is_no_fault(tmp_path):
    write_sound(tmp_path / "Sounds" / "wav" / "a.wav")
    content = b"\xef\xbb\xbf" + json.dumps([GOOD_RECORD]).encode()
    (tmp_path / "Sounds" / "train.json").write_bytes(content)
    assert run(make_config(tmp_path))["kept"] == 1


def test_an_unknown_data_set(tmp_path):
    with pytest.raises(UserError, match="data set 'Sounds': there is no folder"):
        run(make_config(tmp_path))
    assert everything(tmp_path) == set()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".."])
def test_a_data_set_that_is_no_folder_name(tmp_path, name):
    with pytest.raises(UserError, match="plain folder name"):
        make_config(tmp_path, f'dataset=["{name}"]')
