"""The whole way from a user's folder to mels, metadata and report."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from preprocessors.prepare import prepare
from processors.mel import check_mel_settings
from processors.metadata import load_split, mel_path, read_records
from tests.sounds import (
    ROOT,
    captions_csv,
    make_config,
    make_mels_in_process,
    noise,
    write_coded,
    write_sound,
)
from utils.audio import write_wav
from utils.errors import UserError

HEADER = "audiocap_id,youtube_id,start_time,caption\n"


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    make_mels_in_process(monkeypatch)


def run(config, num_workers=1) -> dict:
    """Prepares the config's data set; returns the report."""
    print(*prepare(config, num_workers))
    return report_of(config)


def report_of(config) -> dict:
    return json.loads(folder_of(config).joinpath("preprocess_report.json").read_text())


def folder_of(config):
    return ROOT / config.preprocess.processed_dir / "Sounds"


def files_of(folder) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def config(tmp_path):
    """Ten own sounds, two captions each, no split."""
    rows = [f"{i}.wav,Sound {i} {word}\n" for i in range(10) for word in ("here", "there")]
    folder = captions_csv(tmp_path / "Sounds", "file,caption\n" + "".join(rows))
    for i in range(10):
        write_sound(folder / "wav" / f"{i}.wav", i)
    return make_config(tmp_path, "preprocess.valid_fraction=0.3")


def test_own_sounds(config, capsys):
    report = run(config)
    train, valid = load_split(config, "train"), load_split(config, "valid")
    assert len(train) + len(valid) == 20
    assert not {record["Uid"] for record in train} & {record["Uid"] for record in valid}
    assert valid
    assert load_split(config, "test") == []
    check_mel_settings(folder_of(config), config.preprocess.mel)
    assert np.load(mel_path(config, train[0])).shape == (80, 12)
    assert report["kept"] == 10
    assert report["splits"]["train"]["captions_per_clip"] == 2
    assert report["hours"] == pytest.approx(10 * 0.2 / 3600, abs=1e-4)
    printed = capsys.readouterr()
    assert "Sounds: 10 clips kept (0.00 h), 0 left out" in printed.out
    assert "clip/s" in printed.err


def test_a_second_run_changes_nothing(config):
    run(config)
    files = {path: path.stat().st_mtime_ns for path in folder_of(config).rglob("*.npy")}
    before = files_of(folder_of(config))
    run(config, num_workers=2)
    assert files_of(folder_of(config)) == before
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_sounds_elsewhere(config, tmp_path):
    """Raw sounds stay untouched; all that is made goes into processed_dir."""
    raw = files_of(tmp_path / "Sounds")
    elsewhere = make_config(
        tmp_path / "out",
        f"dataset_path.Sounds={tmp_path / 'Sounds'}",
        "preprocess.valid_fraction=0.3",
    )
    report = run(elsewhere)
    assert files_of(tmp_path / "Sounds") == raw
    here = run(config)
    assert report.pop("made_of") == {"../../Sounds/captions.csv": here["made_of"]["captions.csv"]}
    assert report == {name: here[name] for name in report}
    made = files_of(tmp_path / "out" / "Sounds")
    del made["preprocess_report.json"]
    assert made == {name: files_of(tmp_path / "Sounds")[name] for name in made}


def test_our_own_metadata_is_redone_when_the_source_changes(config, tmp_path):
    run(config)
    captions = tmp_path / "Sounds" / "captions.csv"
    captions.write_text(captions.read_text().replace("Sound 3", "Thunder"))
    run(config)
    all_captions = [r["Caption"] for s in ("train", "valid") for r in load_split(config, s)]
    assert sum(caption.startswith("Thunder") for caption in all_captions) == 2


def test_metadata_that_the_user_wrote_beside_captions_is_used_and_kept(config, tmp_path):
    run(config)
    path = tmp_path / "Sounds" / "train.json"
    edited = json.dumps([record for record in read_records(path, "Sounds") if record["Uid"] != "0"])
    path.write_text(edited)
    captions = tmp_path / "Sounds" / "captions.csv"
    captions.write_text(captions.read_text().replace("Sound ", "Thunder "))
    run(config)
    run(config)
    assert path.read_text() == edited
    valid = read_records(tmp_path / "Sounds" / "valid.json", "Sounds")
    assert any(record["Caption"].startswith("Thunder") for record in valid)


def test_metadata_of_the_user_is_used_as_it_is(config, tmp_path):
    (tmp_path / "Sounds" / "captions.csv").unlink()
    theirs = [
        {"Dataset": "Sounds", "Uid": uid, "Caption": "Mine", "Note": 1} for uid in ("1", "9", "?")
    ]
    (tmp_path / "Sounds" / "train.json").write_text(json.dumps(theirs))
    before = (tmp_path / "Sounds" / "train.json").read_bytes()
    for _ in range(2):
        report = run(config)
        assert (tmp_path / "Sounds" / "train.json").read_bytes() == before
        assert load_split(config, "train") == theirs[:2]
        assert load_split(config, "valid") == []
        assert report["origin"]["train"] == "written by you"
        assert report["skipped"] == {"missing": {"count": 1, "names": ["?"]}}
        assert report["kept"] == 2  # no mels beside those that are asked for


def test_ready_metadata_alone(tmp_path):
    config = make_config(tmp_path)
    for name in ("wav/a.wav", "wav/deep/b.flac", "wav/-idididididi_30.wav"):
        write_sound(tmp_path / "Sounds" / name.replace(".flac", ".wav"), len(name))
    uids = ["a", "deep/b", "-idididididi_30000_40000"]
    for split, chosen in (("train", uids), ("valid", uids[:1])):
        records = [{"Dataset": "Sounds", "Uid": uid, "Caption": "x"} for uid in chosen]
        (tmp_path / "Sounds" / f"{split}.json").write_text(json.dumps(records))
    report = run(config)
    assert [record["Uid"] for record in load_split(config, "train")] == uids
    assert report["leaks"] == [{"uid": "a", "split": "train", "also_in": "valid", "removed": False}]


def test_audiocaps(tmp_path, capsys):
    config = make_config(tmp_path)
    folder = tmp_path / "Sounds"
    for seed, name in enumerate(("train/Y---1_cCGK4M.wav", "22.wav", "wav/-aBcDeFgHiJ_30.wav")):
        write_sound(folder / name, seed)
    train = "1,---1_cCGK4M,0,A motor\n2,-aBcDeFgHiJ,30,Rain\n3,goneGONEgon,10,Wind\n"
    (folder / "train.csv").write_text(HEADER + train)
    valid = "".join(f"{20 + i},validvalid0,70,Bells {i}\n" for i in range(5))
    (folder / "val.csv").write_text(HEADER + valid)
    report = run(config)
    assert [record["Uid"] for record in load_split(config, "train")] == [
        "---1_cCGK4M_0_10000",
        "-aBcDeFgHiJ_30000_40000",
    ]
    assert [record["Caption"] for record in load_split(config, "valid")] == [
        f"Bells {i}" for i in range(5)
    ]
    assert report["kept"] == 3
    assert report["splits"]["valid"] == {
        "records": 5,
        "clips": 1,
        "hours": pytest.approx(0.0001),
        "captions_per_clip": 5.0,
    }
    assert report["skipped"]["missing"]["names"] == ["goneGONEgon_10000_20000"]
    assert "sounds named Y<youtube_id>: 1" in capsys.readouterr().out


def test_the_same_sound_under_two_names_is_reported(tmp_path):
    text = "file,caption,split\na.wav,x,train\nb.wav,x,valid\nc.wav,x,train\n"
    folder = captions_csv(tmp_path / "Sounds", text)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_sound(folder / "wav" / f"{name}.wav", seed)
    write_sound(folder / "wav" / "without a caption.wav", 3)
    config = make_config(tmp_path)
    report = run(config)
    leak = {"uid": "a", "split": "train", "also_in": "valid", "removed": False}
    assert (report["same_sounds"], report["leaks"]) == ([leak], [])
    assert len(load_split(config, "train")) == 2
    assert report["sounds_without_caption"] == 1


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path):
    folder = captions_csv(tmp_path / "Sounds", "file,caption\na.wav,x\nb.wav,y\n")
    write_wav(folder / "a.wav", np.zeros(8000), 16000)
    config = make_config(tmp_path)
    with pytest.raises(UserError, match=r"none of its clips can be used \(1 missing, 1 silent\)"):
        run(config)
    assert report_of(config)["skipped"]["silent"]["names"] == ["a.wav"]
    assert not (folder / "train.json").exists()


def test_unknown_data_sets_and_empty_folders(tmp_path):
    (tmp_path / "Other").mkdir()
    config = make_config(tmp_path)
    with pytest.raises(UserError, match=r"there is no folder .*Sounds; data sets in .*: Other"):
        run(config)
    (tmp_path / "Sounds").mkdir()
    with pytest.raises(UserError, match=r"holds no captions\.csv \(file,caption\)"):
        run(config)


def test_a_processed_dir_that_cannot_be_made(config, tmp_path):
    (tmp_path / "file").touch()
    elsewhere = make_config(tmp_path / "file", f"dataset_path.Sounds={tmp_path / 'Sounds'}")
    with pytest.raises(UserError, match=r"file/Sounds.*: cannot be written: Not a directory"):
        run(elsewhere)


def test_the_shell_script(config, tmp_path, warm_environment):
    def shell(environment, *arguments):
        return subprocess.run(
            ["sh", str(ROOT / "egs/tta/preprocess/run_preprocess.sh"), *place, *arguments],
            env={**os.environ, "VIRTUAL_ENV": str(environment)},
            cwd="/",
            capture_output=True,
            text=True,
        )

    place = [f"preprocess.processed_dir={tmp_path}", "dataset=Sounds"]
    done = shell(sys.prefix, "--num_workers", "2")
    assert (done.returncode, "10 clips kept" in done.stdout) == (0, True), done.stderr
    for arguments in (["--unknown"], ["--num_workers", "0"], ["nonsense"], ["dataset=Nowhere"]):
        failed = shell(warm_environment, *arguments)
        assert failed.returncode == 2
        assert "error: " in failed.stderr
        assert "Traceback" not in failed.stderr


def test_two_at_once_wait_for_each_other(config, tmp_path):
    """The second process makes nothing anew and ends with the same files."""
    command = [
        *(sys.executable, ROOT / "bins/tta/preprocess.py", "--num_workers=1", "dataset=Sounds"),
        *(f"preprocess.processed_dir={tmp_path}", "preprocess.valid_fraction=0.3"),
    ]
    together = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in together]
    assert [process.returncode for process in together] == [0, 0], outputs
    assert all(b"10 clips kept" in printed for printed, _ in outputs)
    waited = [b"another process is at work there since 20" in said for _, said in outputs]
    assert sum(waited) == 1
    made = files_of(tmp_path / "Sounds")
    run(config)
    assert files_of(tmp_path / "Sounds") == made


def test_a_misspelt_second_data_set_is_found_before_the_first_is_done(config, tmp_path):
    both = make_config(tmp_path, "dataset=Sounds,Suonds")
    with pytest.raises(UserError, match=r"no folder .*Suonds; data sets in .*: Sounds"):
        run(both)
    assert not (tmp_path / "Sounds" / "mel").exists()


def test_a_disk_that_is_full_at_any_file(config, tmp_path, monkeypatch):
    """Whichever file it is that has no room: one line with the file and the reason."""
    files = ("1.npy", "index.jsonl", "mel_config.json", "preprocess_report.json", "valid.json")
    (tmp_path / "Sounds" / "mel").mkdir()
    for name in files:
        replace = os.replace
        if name == "index.jsonl":  # rewritten where a killed run left half of a line
            (tmp_path / "Sounds" / "mel" / name).write_text('{"uid": "1", "fau')

        def full(source, target, name=name, replace=replace):
            if str(target).endswith(name):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("utils.files.os.replace", full)
            with pytest.raises(UserError) as caught:
                run(config)
        assert f"{name}: cannot be written: No space left on device" in str(caught.value)
    assert run(config)["kept"] == 10
    assert not list((tmp_path / "Sounds").rglob("*.part"))


def test_audiocaps_as_downloaders_leave_it_behind_a_link(tmp_path):
    """A linked folder inside wav/ with the videos' own sound tracks."""
    archive = tmp_path / "archive" / "train"
    for seed, name in enumerate(("aaaaaaaaaaa.m4a", "Ybbbbbbbbbbb.webm", "ccccccccccc_30.opus")):
        write_coded(archive / name, noise(0.5, seed, rate=48000))
    folder = tmp_path / "Sounds"
    (folder / "wav").mkdir(parents=True)
    (folder / "wav" / "train").symlink_to(archive)
    (folder / "wav" / "train_again").symlink_to(folder / "wav")  # goes round
    rows = "1,aaaaaaaaaaa,0,A motor\n2,bbbbbbbbbbb,10,Rain\n3,ccccccccccc,30,Wind\n"
    (folder / "train.csv").write_text(HEADER + rows)
    config = make_config(tmp_path, "preprocess.valid_fraction=0")
    assert run(config)["skipped"] == {}
    assert len(load_split(config, "train")) == 3


def test_levels_survive(tmp_path):
    """Nothing is normalised: a sound at a tenth of the level is 2.3 lower in its mel."""
    folder = captions_csv(tmp_path / "Sounds", "file,caption\na.wav,x\nb.wav,x\n")
    (folder / "wav").mkdir()
    for name, level in (("a", 1.0), ("b", 0.1)):
        write_wav(folder / "wav" / f"{name}.wav", noise(0.5) * level, 16000)
    run(make_config(tmp_path))
    loud, quiet = (np.load(folder / "mel" / f"{name}.npy") for name in "ab")
    assert np.median(loud - quiet) == pytest.approx(np.log(10), abs=0.01)
