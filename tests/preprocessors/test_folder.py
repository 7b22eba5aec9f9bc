import os
import unicodedata

import pytest

from preprocessors.folder import SoundFolder
from utils.audio import AudioError
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A data set's folder, with another one beside it."""
    for name in ("data/wav/a.wav", "data/b.flac", "data/wav/deep/c.ogg", "elsewhere/x.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "data"


def reason(folder: SoundFolder, name: str) -> str:
    with pytest.raises(AudioError) as caught:
        folder.look_up(name)
    return caught.value.reason


def test_names_are_relative_to_the_folder_or_to_wav(folder):
    sounds = SoundFolder(folder)
    assert sounds.look_up("a.wav") == sounds.look_up("wav/a.wav") == "wav/a.wav"
    assert sounds.look_up("./wav//deep/c.ogg") == sounds.look_up("deep/c.ogg") == "wav/deep/c.ogg"
    assert sounds.look_up("b.flac") == sounds.look_up(str(folder / "b.flac")) == "b.flac"


def test_reasons_for_names_of_no_use(folder, tmp_path):
    (folder / "folder.wav").mkdir()
    sounds = SoundFolder(folder)
    assert reason(sounds, "absent.wav") == "missing"
    assert reason(sounds, "folder.wav") == "not a file"
    assert reason(sounds, "../elsewhere/x.wav") == "outside the folder"
    assert reason(sounds, "wav/../../elsewhere/x.wav") == "outside the folder"
    assert reason(sounds, str(tmp_path / "elsewhere/x.wav")) == "outside the folder"
    assert reason(sounds, "") == reason(sounds, "a\0.wav") == "not a file name"
    assert reason(sounds, "..\\elsewhere\\x.wav") == "outside the folder"
    assert sounds.look_up("deep/../a.wav") == "wav/a.wav"  # stays inside


def test_links_are_followed_wherever_they_lead(folder, tmp_path):
    """A folder of links to an archive is a data set like any other."""
    (folder / "wav/inside.wav").symlink_to(folder / "wav/a.wav")
    (folder / "wav/outside.wav").symlink_to(tmp_path / "elsewhere/x.wav")
    (folder / "wav/out").symlink_to(tmp_path / "elsewhere")
    (folder / "wav/broken.wav").symlink_to(folder / "absent.wav")
    (folder / "wav/loop.wav").symlink_to(folder / "wav/loop.wav")
    (folder / "wav/up").symlink_to(folder)
    (tmp_path / "elsewhere/back").symlink_to(folder / "wav")
    sounds = SoundFolder(folder)
    for name in ("inside.wav", "outside.wav", "out/x.wav"):
        assert sounds.look_up(name) == f"wav/{name}"
    assert sounds.find_stem("x", ()) == "wav/out/x.wav"
    assert sounds.look_up("broken.wav") == "wav/broken.wav"  # reading it will say "missing"
    assert sounds.look_up("loop.wav") == "wav/loop.wav"
    assert reason(sounds, "up/wav/a.wav") == "missing"  # a link to a folder above is not entered


def test_the_folder_and_wav_may_be_links_themselves(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert SoundFolder(tmp_path / "link").look_up("a.wav") == "wav/a.wav"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/wav").symlink_to(tmp_path / "elsewhere")
    assert SoundFolder(tmp_path / "other").look_up("x.wav") == "wav/x.wav"


def test_accents_in_either_spelling(folder):
    composed, decomposed = (unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD"))
    (folder / "wav" / decomposed).touch()
    assert SoundFolder(folder).look_up(composed) == f"wav/{decomposed}"


def test_stems_and_uids(folder):
    for name in ("train/1.wav", "val/1.wav", "1.txt", "wav/a.flac"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    sounds = SoundFolder(folder)
    assert sounds.find_stem("1", ("val", "valid")) == "val/1.wav"
    assert sounds.find_stem("1", ("test",)) == "train/1.wav"
    assert sounds.find_stem("c", ("train",)) == "wav/deep/c.ogg"
    assert sounds.find_stem("absent", ("train",)) is None
    assert sounds.find_uid("deep/c") == "wav/deep/c.ogg"
    assert sounds.find_uid("b") == "b.flac"
    assert sounds.find_uid("a.flac") == "wav/a.flac"
    assert sounds.find_uid("absent") is None


def test_mels_are_left_apart(folder):
    (folder / "mel").mkdir()
    (folder / "mel/m.wav").touch()
    assert SoundFolder(folder).find_uid("mel/m") == "mel/m.wav"
    assert SoundFolder(folder, apart="mel").find_uid("mel/m") is None


def test_what_is_no_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        SoundFolder(tmp_path / "absent")


def test_a_folder_without_permission(folder, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("preprocessors.folder.os.scandir", refuse)
    assert reason(SoundFolder(folder), "deep/c.ogg") == "no permission"


def test_sounds_beside_those_used(folder):
    (folder / "notes.txt").touch()
    assert SoundFolder(folder).count_beside(["wav/a.wav"]) == 2
