"""How long a sound is, found without holding it in memory."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from tests.sounds import RATE, noise
from utils import audio
from utils.audio import AudioError, check_length


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_a_sound_that_is_too_long_is_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, noise(2.0), RATE)
    check_length(path, 2.2)  # lossy formats pad
    with pytest.raises(AudioError, match=r"too long \(at most 1.9 s\)"):
        check_length(path, 1.9)


def test_hours_are_not_decoded_to_find_them_too_long(tmp_path, monkeypatch):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(RATE * 600, np.int16), RATE)
    blocks, take = [], audio._Length.take

    def counted(self, rate, block):
        blocks.append(len(block))
        take(self, rate, block)

    monkeypatch.setattr(audio._Length, "take", counted)
    with pytest.raises(AudioError, match="too long"):
        check_length(path, 1)
    assert len(blocks) == 1


def test_what_is_no_sound_has_no_length(tmp_path):
    (tmp_path / "a.wav").write_text("nothing")
    with pytest.raises(AudioError, match="not decodable"):
        check_length(tmp_path / "a.wav", 1)
