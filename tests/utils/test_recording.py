"""Recordings: what was read is written bit for bit, whatever the format."""

import numpy as np
import pytest
import soundfile

from tests.sounds import noise, write_coded
from utils.audio import Recording, read_recording, write_recording
from utils.errors import UserError


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_samples_come_back_bit_for_bit(tmp_path, subtype, channels):
    random = np.random.default_rng(0)
    whole = random.integers(-(2**31), 2**31, (500, channels), dtype=np.int64).astype(np.int32)
    whole[0], whole[1] = -(2**31), 2**31 - 1
    given = whole if subtype != "FLOAT" else random.normal(size=(500, channels)) * 3
    soundfile.write(tmp_path / "in.wav", given, 22050, subtype)
    recording = read_recording(tmp_path / "in.wav")
    assert recording.samples.shape == (500, channels)
    assert recording.seconds == 500 / 22050
    write_recording(tmp_path / "out.wav", recording)
    for kind in ("int32", "float32"):
        before, after = (
            soundfile.read(tmp_path / name, dtype=kind)[0] for name in ("in.wav", "out.wav")
        )
        assert np.array_equal(before, after)
    infos = [soundfile.info(tmp_path / name) for name in ("in.wav", "out.wav")]
    assert infos[0].subtype == infos[1].subtype == subtype
    assert infos[1].samplerate == 22050


def test_flac_keeps_its_bits_and_lossy_formats_get_floats(tmp_path):
    wav = noise(0.2, rate=48000)
    soundfile.write(tmp_path / "x.flac", wav, 48000, "PCM_24")
    assert read_recording(tmp_path / "x.flac").bits == 24
    write_coded(tmp_path / "x.m4a", wav)
    recording = read_recording(tmp_path / "x.m4a")
    assert recording.bits is None
    write_recording(tmp_path / "out.wav", recording)
    found = soundfile.read(tmp_path / "out.wav", dtype="float32", always_2d=True)[0]
    assert np.array_equal(found, recording.samples)


def test_what_lies_beyond_full_scale_is_clipped_not_wrapped(tmp_path):
    samples = np.array([[1.5], [-1.5], [1.0]], dtype=np.float32)
    write_recording(tmp_path / "x.wav", Recording(samples, 8000, 16))
    assert soundfile.read(tmp_path / "x.wav", dtype="int16")[0].tolist() == [32767, -32768, 32767]


def test_what_is_no_sound_is_refused(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1)), 8000)
    for name, said in (
        ("gone.wav", "missing"),
        ("text.wav", "not decodable"),
        ("empty.wav", "empty file"),
        ("none.wav", "empty file"),
    ):
        with pytest.raises(UserError, match=said):
            read_recording(tmp_path / name)
