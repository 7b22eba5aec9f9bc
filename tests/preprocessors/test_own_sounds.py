import contextlib
import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessors.folder import SoundFolder
from preprocessors.own_sounds import read_own_sounds, read_sounds_alone, unique_uids
from processors.metadata import fault_of_uid
from tests.sounds import captions_csv
from utils.errors import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def reasons(records) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for skip in records.skipped:
        found.setdefault(skip.reason, []).append(skip.name)
    return found


def uids(records) -> list[str]:
    return [record["Uid"] for split in records.splits.values() for record in split]


def read(folder, text):
    return read_own_sounds(SoundFolder(captions_csv(folder, text)), "Sounds")


def test_records(tmp_path):
    touch(tmp_path, "wav/a.wav", "wav/deep/b.ogg", "c.flac")
    source = read(
        tmp_path,
        "file,caption,split,Kind\n"
        "a.wav,A dog,train,dog\n"
        "wav/deep/b.ogg,Rain,val,rain\n"
        "c.flac,Wind,,\n"
        "a.wav,A dog barks,train,dog\n"
        "c.flac,More wind,TEST,\n",
    )
    assert source.splits == {
        "train": [
            {"Dataset": "Sounds", "Uid": "a", "Caption": "A dog", "Kind": "dog"},
            {"Dataset": "Sounds", "Uid": "c", "Caption": "Wind", "Kind": ""},
            {"Dataset": "Sounds", "Uid": "a", "Caption": "A dog barks", "Kind": "dog"},
        ],
        "valid": [{"Dataset": "Sounds", "Uid": "deep/b", "Caption": "Rain", "Kind": "rain"}],
        "test": [{"Dataset": "Sounds", "Uid": "c", "Caption": "More wind", "Kind": ""}],
    }
    assert source.files == {"a": "wav/a.wav", "deep/b": "wav/deep/b.ogg", "c": "c.flac"}
    assert not source.skipped


def test_names_of_every_kind(tmp_path):
    names = ["-dash", "two words", "quo'te\"s", "line\nbreak", "été", "🐕", "a.b.c", ".hidden"]
    touch(tmp_path, *(f"wav/{name}.wav" for name in names))
    table = io.StringIO(newline="")
    csv.writer(table).writerows([["file", "caption"], *([f"{n}.wav", "x"] for n in names)])
    source = read(tmp_path, table.getvalue())
    assert uids(source) == names
    assert not source.skipped


def test_rows_of_no_use_are_skipped_with_their_reason(tmp_path):
    touch(tmp_path, "wav/a.wav", "wav/" + "long" * 62 + "ee.wave")
    source = read(
        tmp_path,
        "file,caption,split\n"
        "absent.wav,Rain,\n"
        "../../etc/passwd,Rain,\n"
        "/etc/passwd,Rain,\n"
        "a.wav, ,\n"
        "a.wav,Rain,holdout\n" + "long" * 62 + "ee.wave,Rain,\n",
    )
    assert uids(source) == ["long" * 62 + "ee"]
    assert reasons(source) == {
        "outside the folder": ["../../etc/passwd", "/etc/passwd"],
        "missing": ["absent.wav"],
        "empty caption": ["captions.csv line 5"],
        "split that is not train, valid, val or test": ["captions.csv line 6"],
    }


def test_names_as_spreadsheets_and_people_write_them(tmp_path):
    """Backslashes, blanks around a name, an absolute path within the folder: as meant."""
    touch(tmp_path, "wav/stamps/cow.ogg", "wav/a.wav", "wav/ blank.wav")
    text = "file, caption\nstamps\\cow.ogg, A cow\n a.wav , Rain\n"
    assert uids(read(tmp_path, text + f"{tmp_path}/wav/a.wav,Wind\n")) == ["stamps/cow", "a", "a"]
    assert uids(read(tmp_path, "file,caption\n blank.wav,Rain\n")) == [" blank"]


def test_what_was_looked_for_and_the_nearest_name(tmp_path):
    touch(tmp_path, "wav/stamps/cow.ogg", "wav/dog_bark.wav")
    rows = "file,caption\nstamps/cow,A cow\nold\\Cow.ogg,A cow\ndog-bark.wav,A dog\nxyz,Rain\n"
    hints = {skip.name: skip.hint for skip in read(tmp_path, rows).skipped}
    nearest = "; the nearest name is wav/"
    assert hints == {
        "stamps/cow": f"looked for stamps/cow and wav/stamps/cow{nearest}stamps/cow.ogg",
        "old\\Cow.ogg": f"looked for old/Cow.ogg and wav/old/Cow.ogg{nearest}stamps/cow.ogg",
        "dog-bark.wav": f"looked for dog-bark.wav and wav/dog-bark.wav{nearest}dog_bark.wav",
        "xyz": "looked for xyz and wav/xyz; no name is like it",
    }


@pytest.mark.parametrize(
    "root", ["C:\\sounds\\", "d:/sounds/", "\\\\server\\sounds\\", "/home/ada/", "../"]
)
def test_a_place_on_another_computer(tmp_path, root):
    touch(tmp_path, "wav/dog.wav")
    (skip,) = read(tmp_path, f"file,caption\n{root}dog.wav,A dog\n").skipped
    assert (skip.reason, skip.name) == ("outside the folder", f"{root}dog.wav")
    assert skip.hint == ("names begin at the data set's folder; the nearest name is wav/dog.wav")


def test_a_name_too_long_for_a_mel(tmp_path):
    name = "x" * 251
    touch(tmp_path, f"wav/{name}")
    source = read(tmp_path, f"file,caption\n{name},Rain\n")
    assert reasons(source) == {"name too long": [f"wav/{name}"]}


def test_columns_that_are_made_here_are_refused(tmp_path):
    touch(tmp_path, "wav/a.wav")
    with pytest.raises(UserError, match="the column Uid is made here"):
        read(tmp_path, "file,caption,Uid\na.wav,Rain,7\n")


def test_uids_tell_all_files_apart():
    assert unique_uids({"wav/dog.wav", "wav/cat.wav", "wav/cat.ogg"}) == {
        "wav/dog.wav": "dog",
        "wav/cat.wav": "cat.wav",
        "wav/cat.ogg": "cat.ogg",
    }
    assert unique_uids({"a.wav", "wav/a.wav"}) == {"a.wav": "a.wav", "wav/a.wav": "wav/a.wav"}
    assert unique_uids({"wav/a.wav", "wav/a.ogg", "wav/a.wav.ogg"}) == {
        "wav/a.wav": "wav/a.wav",
        "wav/a.ogg": "a.ogg",
        "wav/a.wav.ogg": "a.wav.ogg",
    }


@settings(deadline=None)  # a busy machine is no fault
@given(st.sets(st.lists(st.sampled_from(["wav", "a", "a.wav", "a.ogg"]), min_size=1).map("/".join)))
def test_uids_are_unique_whatever_the_files(files):
    uids = unique_uids(files)
    assert uids.keys() == files
    assert len(set(uids.values())) == len(files)


fields = st.sampled_from(["a.wav", "b", "../x", "/", "", "\0", "\n", '"', "valid", "é" * 300])


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.tuples(fields | st.text(max_size=8), fields, fields | st.just("train"))))
def test_any_rows_are_read_or_a_clear_error(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    touch(folder, "wav/a.wav", "wav/b")
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("file", "caption", "split"), *rows])
    (folder / "captions.csv").write_bytes(table.getvalue().encode("utf-8", "replace"))
    with contextlib.suppress(UserError):
        source = read_own_sounds(SoundFolder(folder), "Sounds")
        assert all(fault_of_uid(uid) is None for uid in uids(source))


def test_a_file_without_captions(tmp_path):
    touch(tmp_path, "wav/a.wav", "b.ogg")
    for text in ("file\na.wav\nb.ogg\n", "file,split\na.wav,train\nb.ogg,valid\n"):
        source = read(tmp_path, text)
        records = [record for split in source.splits.values() for record in split]
        assert [(r["Uid"], r["Caption"]) for r in records] == [("a", None), ("b", None)]
    with pytest.raises(UserError, match="file,caption, separated by commas; caption missing"):
        read(tmp_path, "file,captoin\na.wav,A dog\n")


def test_sounds_alone(tmp_path):
    touch(tmp_path, "wav/a.wav", "deep/b.ogg", "notes.txt")
    source = read_sounds_alone(SoundFolder(tmp_path), "Sounds")
    found = [(r["Dataset"], r["Uid"], r["Caption"]) for r in source.splits["train"]]
    assert found == [("Sounds", "a", None), ("Sounds", "deep/b", None)]
    assert source.files == {"a": "wav/a.wav", "deep/b": "deep/b.ogg"}
