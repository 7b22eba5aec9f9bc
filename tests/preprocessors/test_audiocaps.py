from collections import Counter

import pytest

from preprocessors.audiocaps import read_audiocaps, stems_of
from preprocessors.folder import SoundFolder
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


def test_records_of_all_splits(tmp_path):
    source = read(tmp_path, train=TRAIN, val=VALID)
    assert source.records[0] == (
        "train",
        {"Dataset": "AudioCaps", "Uid": "---1_cCGK4M_0_10000", "Caption": "A motor"},
    )
    assert source.records[2][1]["Caption"] == "Wind, then rain"
    assert Counter(split for split, _ in source.records) == {"train": 5, "valid": 5}
    held_out = {record["Uid"] for split, record in source.records if split == "valid"}
    assert held_out == {"validvalid0_70000_80000"}
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
    assert list(source.files.values()) == sounds
    assert source.naming == {
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
    assert source.files == {"---1_cCGK4M_0_10000": "wav/---1_cCGK4M_0.wav"}
    assert stems_of("dogs/bark") == {}


def test_rows_of_no_use_are_skipped(tmp_path):
    rows = "7,../../../x,0,Rain\n8,aaaaaaaaaaa,1.5,Rain\n9,aaaaaaaaaaa,-3,Rain\n10,aaaaaaaaaaa,3,\n"
    source = read(tmp_path, train=HEADER + rows + "11,bbbbbbbbbbb,3,Rain\n")
    assert [record["Uid"] for _, record in source.records] == ["bbbbbbbbbbb_3000_13000"]
    assert dict(source.skipped.by_reason()) == {
        "start_time that is not a whole number of seconds": [
            "train.csv line 3",
            "train.csv line 4",
        ],
        "empty caption": ["train.csv line 5"],
        "youtube_id with other characters than A-Z a-z 0-9 _ -": ["train.csv line 2"],
    }


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
    rows = Counter(split for split, _ in source.records)
    clips = Counter(split for split, _ in {(s, record["Uid"]) for s, record in source.records})
    assert rows == {"train": 49_838, "valid": 2_475, "test": 4_875}
    assert clips == {"train": 49_838, "valid": 495, "test": 975}
    assert sum(record["Uid"].startswith("-") for _, record in source.records) == 2_406 + 95
    assert not source.skipped
