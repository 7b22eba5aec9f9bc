import contextlib
import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from processors.clips import Clip, Task, digest
from processors.mel import check_mel_settings, mel_of_wav, settings_path, write_mel_settings
from processors.mel_folder import MelFolder, run_tasks
from tests import warm
from tests.sounds import (
    MEL,
    RATE,
    ROOT,
    clips_of,
    make_mels,
    make_mels_in_process,
    noise,
    write_sound,
)
from utils.audio import read_wav, write_wav
from utils.errors import UserError
from utils.files import one_writer


@pytest.fixture
def sounds(tmp_path):
    for seed in range(5):
        write_sound(tmp_path / "sounds" / f"{seed}.wav", seed)
    return tmp_path / "sounds"


@pytest.fixture
def folder(tmp_path, sounds):
    return MelFolder(tmp_path / "data" / "mel", sounds, MEL)


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    make_mels_in_process(monkeypatch)


def go(folder, clips, num_workers=1) -> list[str]:
    """A whole run; the Uids of the mels that it made."""
    times = {path: path.stat().st_mtime_ns for path in folder.mel_dir.glob("*.npy")}
    folder.make(clips, num_workers, "Sounds")
    made = {p for p in folder.mel_dir.glob("*.npy") if times.get(p) != p.stat().st_mtime_ns}
    return sorted(path.stem for path in made)


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.mel_dir.iterdir()}


def test_a_mel_is_that_of_its_sound(folder, sounds):
    clips = clips_of(sounds)
    assert len(go(folder, clips)) == 5
    for clip in clips:
        mel = np.load(folder.mel_dir / f"{clip.uid}.npy")
        assert mel.dtype == np.float32
        np.testing.assert_array_equal(mel, mel_of_wav(read_wav(sounds / clip.file, RATE), MEL))
    names = {f"{seed}.npy" for seed in range(5)} | {"mel_config.json", "index.jsonl"}
    assert content(folder).keys() == names
    check_mel_settings(folder.mel_dir.parent, MEL)


def test_the_number_of_workers_changes_nothing(folder, sounds, tmp_path):
    go(folder, clips_of(sounds))
    other = MelFolder(tmp_path / "other" / "mel", sounds, MEL)
    go(other, clips_of(sounds), num_workers=3)
    assert content(other) == content(folder)


def test_a_second_run_redoes_only_what_is_stale(folder, sounds):
    go(folder, clips_of(sounds))
    assert go(folder, clips_of(sounds)) == []
    write_sound(sounds / "1.wav", seed=77, seconds=0.3)  # another sound
    (folder.mel_dir / "2.npy").unlink()  # missing
    (folder.mel_dir / "3.npy").write_bytes(b"half")  # damaged
    assert go(folder, clips_of(sounds)) == ["1", "2", "3"]
    assert np.load(folder.mel_dir / "1.npy").shape == (80, 18)


def test_sounds_are_kept_where_asked_for_and_later_as_well(folder, sounds):
    clips, kept = clips_of(sounds), folder.mel_dir.parent / "pcm"
    go(folder, clips)
    assert not kept.exists()
    asked = MelFolder(folder.mel_dir, sounds, MEL, keep_wavs=True)
    assert len(go(asked, clips)) == 5
    assert go(asked, clips) == []
    for clip in clips:
        pcm, wav = np.load(kept / f"{clip.uid}.npy"), read_wav(sounds / clip.file, RATE)
        assert pcm.dtype == np.int16
        np.testing.assert_allclose(pcm / 32767, wav.clip(-1, 1), atol=1e-4)
    (kept / "2.npy").unlink()
    (kept / "3.npy").write_bytes(b"half")
    assert go(asked, clips) == ["2", "3"]
    assert go(folder, clips) == []  # those that are there do no harm


def test_what_was_kept_of_another_sound_is_never_taken_for_this_one_s(folder, sounds):
    asked = MelFolder(folder.mel_dir, sounds, MEL, keep_wavs=True)
    go(asked, clips_of(sounds))
    write_sound(sounds / "1.wav", seed=77)  # as long as it was
    assert go(folder, clips_of(sounds)) == ["1"]
    assert go(asked, clips_of(sounds)) == ["1"]
    pcm = np.load(folder.mel_dir.parent / "pcm" / "1.npy")
    np.testing.assert_allclose(pcm / 32767, read_wav(sounds / "1.wav", RATE), atol=1e-4)
    (sounds / "1.wav").write_text("words")
    folder.make(clips_of(sounds), 1, "Sounds")
    assert not (folder.mel_dir.parent / "pcm" / "1.npy").exists()


def test_a_sound_that_went_bad_loses_its_mel_and_is_tried_again(folder, sounds):
    go(folder, clips_of(sounds))
    (sounds / "0.wav").write_text("words")
    assert folder.make(clips_of(sounds), 1, "Sounds")[0].fault == "not decodable"
    assert not (folder.mel_dir / "0.npy").exists()
    write_sound(sounds / "0.wav", 0)
    assert go(folder, clips_of(sounds)) == ["0"]


def test_other_settings_redo_all_and_leave_no_mixture(folder, sounds, monkeypatch):
    clips = clips_of(sounds)
    go(folder, clips)
    again = MelFolder(folder.mel_dir, sounds, dataclasses.replace(MEL, n_mel=40))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("processors.mel_folder.run_tasks", killed)
        with pytest.raises(KeyboardInterrupt):
            again.make(clips, 1, "Sounds")
    # There is no mel of the old settings, and no word that those there are good.
    assert not list(folder.mel_dir.glob("*.npy"))
    assert not settings_path(folder.mel_dir.parent).exists()
    assert len(go(again, clips)) == 5
    assert np.load(folder.mel_dir / "0.npy").shape[0] == 40
    check_mel_settings(folder.mel_dir.parent, again.mel)


def test_damaged_settings_and_index_are_made_anew(folder, sounds):
    go(folder, clips_of(sounds))
    (folder.mel_dir / "mel_config.json").write_text("{")
    assert go(folder, clips_of(sounds)) == []  # the index knows what the mels were made with
    lines = (folder.mel_dir / "index.jsonl").read_text().splitlines()
    damaged = [lines[0], "[]", "{}", '{"uid": 3}', "\0\0", lines[1], lines[2][:40]]
    (folder.mel_dir / "index.jsonl").write_text("\n".join(damaged))
    assert len(go(folder, clips_of(sounds))) == 3


def test_reasons_against_a_sound(tmp_path):
    task = Task([], tmp_path / "mel", tmp_path, MEL, keep_wavs=False)
    write_sound(tmp_path / "short.wav", seconds=0.02)
    write_wav(tmp_path / "silent.wav", np.zeros(8000), RATE)
    write_wav(tmp_path / "clipped.wav", np.clip(noise(0.2) * 3, -1, 1), RATE)
    write_sound(tmp_path / "fine.wav", seconds=0.05)
    names = ("short", "silent", "clipped", "fine", "absent")
    outcomes = dataclasses.replace(
        task, clips=[Clip(name, f"{name}.wav", 0, 0) for name in names]
    ).run()
    assert [outcome.fault for outcome in outcomes] == ["too short", "silent", None, None, "missing"]
    assert [bool(outcome.remarks) for outcome in outcomes] == [False, False, True, False, False]
    assert outcomes[2].remarks[0].startswith("clipped")
    assert (outcomes[3].seconds, outcomes[3].frames) == (0.05, 3)


def test_names_that_cannot_be_a_file(tmp_path):
    write_sound(tmp_path / "a.wav")
    (tmp_path / "mel" / "a.npy").mkdir(parents=True)
    (tmp_path / "mel" / "file").touch()
    names = ["a", "file/b", "x" * 300]
    task = Task(
        [Clip(uid, "a.wav", 0, 0) for uid in names],
        tmp_path / "mel",
        tmp_path,
        MEL,
        keep_wavs=False,
    )
    assert {outcome.fault for outcome in task.run()} == {"name that cannot be a file's"}


def test_a_disk_that_takes_only_half_of_a_mel_is_a_clear_error(tmp_path):
    """The kernel's limit on a file's size stands for the disk's end: the write itself fails."""
    write_sound(tmp_path / "a.wav")
    task = Task([Clip("a", "a.wav", 0, 0)], tmp_path / "mel", tmp_path, MEL, keep_wavs=False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with (
            pytest.raises(UserError, match=r"a\.npy: cannot be written: File too large"),
            one_writer(tmp_path),
        ):
            task.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "mel").iterdir()) == []


def test_digest():
    assert digest(noise(0.2, 1)) == digest(noise(0.2, 1))
    assert len({digest(noise(0.2, seed)) for seed in range(20)}) == 20


PROGRAM = """
import sys
from pathlib import Path
from tests.sounds import make_mels
if __name__ == "__main__":
    make_mels(*map(Path, sys.argv[1:]))
"""


def alive_in_session(session: int) -> bool:
    """Whether a process of the session still runs; one that only waits to be buried does not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_session = path.read_text().rsplit(")", 1)[1].split()[:4]
            if int(its_session) == session and state != "Z":
                return True
    return False


class Dying:
    """A task whose process is killed, as the system does for lack of memory."""

    def run(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_ends_the_command_with_one_line(monkeypatch):
    forks = multiprocessing.get_context("fork")  # which start at once, with nothing to import
    monkeypatch.setattr("processors.mel_folder.get_context", lambda _: forks)
    monkeypatch.setattr("processors.mel_folder._start_worker", lambda: None)
    with pytest.raises(UserError, match=r"worker process died.*fewer workers than --num_workers 2"):
        list(run_tasks([Dying(), Dying()], 2))


def start_program(tmp_path, mels: Path, sounds: Path) -> subprocess.Popen:
    """The real thing: a new interpreter, and a server of its own from which workers are forked."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, tmp_path / "program.py", mels, sounds]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, start_new_session=True)


def test_killed_at_any_moment_the_next_run_goes_on(tmp_path):
    mels, sounds = tmp_path / "killed" / "mel", tmp_path / "sounds"
    for seed in range(120):
        write_sound(sounds / f"{seed}.wav", seed, seconds=1.0)
    for already in (1, 60):
        if already == 1:
            run = start_program(tmp_path, mels, sounds)
        else:
            run = warm.start_call(make_mels, mels, sounds)
        deadline = time.monotonic() + 600
        while len(list(mels.glob("*.npy"))) < already:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(run.pid, signal.SIGKILL)
        run.wait() if already == 1 else run.join()
        deadline = time.monotonic() + 60
        while alive_in_session(run.pid):  # the workers follow
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not (mels / "mel_config.json").exists()
    killed = MelFolder(mels, sounds, MEL)
    assert len(go(killed, clips_of(sounds), 2)) < 120
    whole = MelFolder(tmp_path / "whole" / "mel", sounds, MEL)
    go(whole, clips_of(sounds))
    assert content(killed) == content(whole)


def test_settings_file_is_what_the_contract_says(tmp_path):
    write_mel_settings(tmp_path, MEL)
    assert json.loads((tmp_path / "mel/mel_config.json").read_text())["hop_size"] == 256
