import os
import struct
import wave

import numpy as np
import pytest
import soundfile

from tests.sounds import RATE, noise
from utils.audio import AudioError, read_sound, read_wav, write_wav
from utils.errors import UserError


def sine(rate: int, seconds: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype("f4")


def reason(path) -> str:
    with pytest.raises(AudioError) as caught:
        read_sound(path, RATE)
    return caught.value.reason


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
def test_any_rate_gives_the_same_sine(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", sine(rate), rate, subtype="FLOAT")
    wav = read_wav(tmp_path / "a.wav", RATE)
    assert wav.dtype == np.float32
    assert abs(len(wav) - RATE // 2) <= 1
    middle = slice(1000, -1000)  # the resampling filter has nothing before and after
    np.testing.assert_allclose(wav[middle], sine(RATE)[: len(wav)][middle], atol=2e-3)


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [
        (".wav", "PCM_U8", 1e-2),
        (".wav", "PCM_16", 1e-4),
        (".wav", "PCM_24", 1e-6),
        (".wav", "PCM_32", 1e-6),
        (".wav", "FLOAT", 0),
        (".wav", "DOUBLE", 0),
        (".flac", "PCM_16", 1e-4),
        (".ogg", "VORBIS", 5e-2),
        (".mp3", "MPEG_LAYER_III", 5e-2),
    ],
)
def test_any_format_and_depth(tmp_path, suffix, subtype, error):
    soundfile.write(tmp_path / f"a{suffix}", sine(RATE), RATE, subtype=subtype)
    wav = read_wav(tmp_path / f"a{suffix}", RATE)
    middle = slice(2000, 6000)
    np.testing.assert_allclose(wav[middle], sine(RATE)[middle], atol=error)


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_are_averaged(tmp_path, channels):
    levels = np.linspace(0, 1, channels)
    soundfile.write(tmp_path / "a.wav", sine(RATE)[:, None] * levels, RATE, subtype="FLOAT")
    expected = sine(RATE) * levels.mean()
    np.testing.assert_allclose(read_wav(tmp_path / "a.wav", RATE), expected, atol=1e-6)


def test_content_decides_the_format_not_the_name(tmp_path):
    soundfile.write(tmp_path / "a.mp3", sine(RATE), RATE)
    (tmp_path / "a.mp3").rename(tmp_path / "a.wav")
    assert abs(len(read_wav(tmp_path / "a.wav", RATE)) - RATE // 2) < 10


def test_block_by_block_equals_all_at_once(tmp_path, monkeypatch):
    """Long files are decoded in blocks; where the cuts lie must not be heard."""
    soundfile.write(tmp_path / "a.wav", noise(1.0, rate=44100), 44100, subtype="FLOAT")
    whole = read_wav(tmp_path / "a.wav", RATE)
    monkeypatch.setattr("utils.audio.BLOCK_SAMPLES", 997)
    np.testing.assert_allclose(read_wav(tmp_path / "a.wav", RATE), whole, atol=1e-6)


def test_equals_one_call_of_soxr(tmp_path):
    import soxr

    soundfile.write(tmp_path / "a.wav", noise(1.0, rate=44100), 44100, subtype="FLOAT")
    expected = soxr.resample(noise(1.0, rate=44100), 44100, RATE, "HQ")
    np.testing.assert_allclose(read_wav(tmp_path / "a.wav", RATE), expected, atol=1e-6)


def test_only_what_exceeds_full_scale_is_scaled(tmp_path):
    for name, peak in (("loud", 4.0), ("quiet", 0.01)):
        soundfile.write(tmp_path / f"{name}.wav", 2 * peak * sine(RATE), RATE, subtype="FLOAT")
    assert np.abs(read_wav(tmp_path / "loud.wav", RATE)).max() == pytest.approx(1)
    assert np.abs(read_wav(tmp_path / "quiet.wav", RATE)).max() == pytest.approx(0.01, rel=1e-3)


def test_share_at_full_scale(tmp_path):
    wav = sine(RATE)
    soundfile.write(tmp_path / "clean.wav", wav, RATE)
    soundfile.write(tmp_path / "clipped.wav", np.clip(wav * 3, -1, 1), RATE)
    assert read_sound(tmp_path / "clean.wav", RATE).full_scale_share == 0
    assert read_sound(tmp_path / "clipped.wav", RATE).full_scale_share > 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_a_single_sample_that_is_no_number(tmp_path, bad, rate):
    wav = sine(rate)
    wav[-1] = bad
    soundfile.write(tmp_path / "a.wav", wav, rate, subtype="FLOAT")
    assert reason(tmp_path / "a.wav") == "NaN or infinite samples"


@pytest.mark.filterwarnings("ignore:overflow")
def test_channels_whose_sum_would_overflow_are_only_loud(tmp_path):
    wav = np.full((100, 4), 3e38, np.float32)
    soundfile.write(tmp_path / "a.wav", wav, RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_sound(tmp_path / "a.wav", RATE).wav, 1, rtol=1e-6)


def test_what_is_no_sound(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("these are words\n" * 100)
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0, np.float32), RATE)
    assert reason(tmp_path / "empty.wav") == "empty file"
    assert reason(tmp_path / "nothing.wav") == "empty file"
    assert reason(tmp_path / "text.wav") == "not decodable"
    assert reason(tmp_path / "folder.wav") == "not a file"
    assert reason(tmp_path / "pipe.wav") == "not a file"
    assert reason(tmp_path / "absent.wav") == "missing"


def test_no_permission(tmp_path, monkeypatch):
    """The administrator may read anything, so that the refusal is played here."""
    soundfile.write(tmp_path / "a.wav", sine(RATE), RATE)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("utils.audio.os.open", refuse)
    assert reason(tmp_path / "a.wav") == "no permission"


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
def test_truncated(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, noise(2.0), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(path) in ("truncated", "not decodable")


def test_a_wav_written_to_a_pipe_has_no_length_and_is_whole(tmp_path):
    write_wav(tmp_path / "a.wav", sine(RATE), RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(content)
    assert len(read_wav(tmp_path / "a.wav", RATE)) == RATE // 2


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_a_damaged_rate_costs_no_memory(tmp_path, rate):
    write_wav(tmp_path / "a.wav", noise(1.0), RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = struct.pack("<I", rate)
    (tmp_path / "a.wav").write_bytes(content)
    assert reason(tmp_path / "a.wav") in ("sample rate out of range", "not decodable")


def test_read_wav_names_the_file(tmp_path):
    (tmp_path / "text.wav").write_text("words")
    with pytest.raises(UserError, match=r"text\.wav: not decodable"):
        read_wav(tmp_path / "text.wav", RATE)


def test_write_wav_clips_and_does_not_wrap(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([0, 0.5, 1, 1.5, -1, -7]), 8000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        samples = np.frombuffer(file.readframes(10), "<i2")
    assert samples.tolist() == [0, 16384, 32767, 32767, -32767, -32768]
