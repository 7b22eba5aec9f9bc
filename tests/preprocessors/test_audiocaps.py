import pytest

from preprocessors.audiocaps import read_audiocaps, stems_of
from preprocessors.folder import SoundFolder
from preprocessors.prepare import find_sounds
from preprocessors.records import Skip
from preprocessors.report import build_report
from processors.metadata import SPLITS
from tests.sounds import make_config
from utils.errors import UserError

HEADER = "audiocap_id,youtube_id,start_time,caption\n"
TRAIN = (
    HEADER
    + "1,---1_cCGK4M,0,A motor\n"
    + "2,-aBcDeFgHiJ,30,Rain\n"
    + '3,kLmNoPqRsTu,130,"Wind, then rain"\n'
    + "4,vWxYz012345,20,A dog\n"
    + "5,67890_-abcd,10,Bells\n"
)
VALID = HEADER + "".join(f"{100 + i},validvalid0,70,Caption {i}\n" for i in range(5))


def read(folder, sounds=(), **tables):
    for name in sounds:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    return read_audiocaps(SoundFolder(folder), "AudioCaps")


def files(folder, records) -> dict[str, str]:
    return {clip.uid: clip.file for clip in find_sounds(SoundFolder(folder), records)[0]}


def test_records_of_all_splits(tmp_path):
    source = read(tmp_path, train=TRAIN, val=VALID)
    train, valid = source.splits["train"], source.splits["valid"]
    assert train[0] == {
        "Dataset": "AudioCaps",
        "Uid": "---1_cCGK4M_0_10000",
        "Caption": "A motor",
    }
    assert train[2]["Caption"] == "Wind, then rain"
    assert (len(train), len(valid)) == (5, 5)
    assert {record["Uid"] for record in valid} == {"validvalid0_70000_80000"}
    assert source.origin == {"train": "train.csv", "valid": "val.csv"}


def test_every_way_to_name_a_file(tmp_path):
    sounds = [
        "wav/---1_cCGK4M_0_10000.wav",
        "wav/-aBcDeFgHiJ_30.flac",
        "train/kLmNoPqRsTu.wav",
        "somewhere/deep/YvWxYz012345.mp3",
        "5.ogg",
        "val/103.wav",
    ]
    source = read(tmp_path, sounds, train=TRAIN, val=VALID)
    assert sorted(files(tmp_path, source).values()) == sorted(sounds)
    clips, _ = find_sounds(SoundFolder(tmp_path), source)
    splits, settings = {split: [] for split in SPLITS}, make_config(tmp_path).preprocess
    report = build_report("AudioCaps", source, clips, [], {}, splits, [], settings)
    assert report["naming"] == {
        "<audiocap_id>": 2,
        "<youtube_id>_<start ms>_<end ms>": 1,
        "<youtube_id>_<start s>": 1,
        "<youtube_id>": 1,
        "Y<youtube_id>": 1,
    }


def test_the_surest_name_wins(tmp_path):
    source = read(
        tmp_path, ["wav/1.wav", "wav/---1_cCGK4M_0.wav", "wav/---1_cCGK4M.wav"], train=TRAIN
    )
    assert files(tmp_path, source) == {"---1_cCGK4M_0_10000": "wav/---1_cCGK4M_0.wav"}
    assert stems_of("dogs/bark") == {}


def test_rows_of_no_use_are_skipped(tmp_path):
    rows = "7,../../../x,0,Rain\n8,aaaaaaaaaaa,1.5,Rain\n9,aaaaaaaaaaa,-3,Rain\n10,aaaaaaaaaaa,3,\n"
    source = read(tmp_path, train=HEADER + rows + "11,bbbbbbbbbbb,3,Rain\n")
    assert [record["Uid"] for record in source.splits["train"]] == ["bbbbbbbbbbb_3000_13000"]
    assert source.skipped == (
        Skip("youtube_id with other characters than A-Z a-z 0-9 _ -", "train.csv line 2"),
        Skip("start_time that is not a whole number of seconds", "train.csv line 3"),
        Skip("start_time that is not a whole number of seconds", "train.csv line 4"),
        Skip("empty caption", "train.csv line 5"),
    )


def test_captions_broken_over_lines_and_blank_lines(tmp_path):
    """As published caption files have them, with a spreadsheet's commas after a second half."""
    text = (
        " audiocap_id, youtube_id ,start_time,caption\n"
        "1,aaaaaaaaaaa,30,an engine chugging loudly with muffled\n"
        "speech in the background\n"
        "\n"
        "7994, bbbbbbbbbbb ,30,a animal is gurgling in water.\n"
        "a dog is whimpering,,,\n"
        "\n"
        '3,-cccccccccc,30,"He said ""stop"", then left"\n'
        "4,ddddddddddd,30\n"
    )
    records = read(tmp_path, train=text)
    assert [record["Caption"] for record in records.splits["train"]] == [
        "an engine chugging loudly with muffled speech in the background",
        "a animal is gurgling in water. a dog is whimpering",
        'He said "stop", then left',
    ]
    assert [skip.name for skip in records.skipped] == ["train.csv line 9"]


def test_a_wav_is_taken_rather_than_what_it_was_made_of(tmp_path):
    sounds = ["train/kLmNoPqRsTu.m4a", "train/kLmNoPqRsTu.wav", "train/kLmNoPqRsTu.webm"]
    source = read(tmp_path, sounds, train=TRAIN)
    assert list(files(tmp_path, source).values()) == ["train/kLmNoPqRsTu.wav"]


def test_faults_of_the_files(tmp_path):
    with pytest.raises(UserError, match=r"train\.csv: .* audiocap_id, start_time missing"):
        read(tmp_path, train="youtube_id,caption\na,b\n")
    with pytest.raises(UserError, match=r"both val\.csv and valid\.csv"):
        read(tmp_path, val=VALID, valid=VALID)


def test_the_official_files(pytestconfig):
    folder = pytestconfig.getoption("audiocaps")
    if folder is None:
        pytest.skip("needs the official AudioCaps CSVs: --audiocaps FOLDER")
    source = read_audiocaps(SoundFolder(folder), "AudioCaps")
    rows = {split: len(records) for split, records in source.splits.items()}
    clips = {split: {r["Uid"] for r in records} for split, records in source.splits.items()}
    assert rows == {"train": 49_838, "valid": 2_475, "test": 4_875}
    assert [*map(len, clips.values())] == [49_838, 495, 975]
    assert sum(uid.startswith("-") for uids in clips.values() for uid in uids) == 2_406 + 95
    assert not source.skipped
