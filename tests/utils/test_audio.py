import os
import struct
import wave

import numpy as np
import pytest
import soundfile

from tests.sounds import RATE, noise, write_coded
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
    monkeypatch.setattr("utils.decode.BLOCK_SAMPLES", 997)
    np.testing.assert_allclose(read_wav(tmp_path / "a.wav", RATE), whole, atol=1e-6)


def test_equals_one_call_of_soxr(tmp_path):
    import soxr

    soundfile.write(tmp_path / "a.wav", noise(1.0, rate=44100), 44100, subtype="FLOAT")
    expected = soxr.resample(noise(1.0, rate=44100), 44100, RATE, "HQ")
    np.testing.assert_allclose(read_wav(tmp_path / "a.wav", RATE), expected, atol=1e-6)


@pytest.mark.parametrize("peak", [0.01, 0.99, 1.46, 2.0])
def test_levels_are_left_alone(tmp_path, peak):
    """Lossy decoders overshoot full scale: a vocoder is to hear the level that the mel shows."""
    soundfile.write(tmp_path / "a.wav", 2 * peak * sine(RATE), RATE, subtype="FLOAT")
    sound = read_sound(tmp_path / "a.wav", RATE)
    np.testing.assert_allclose(sound.wav, 2 * peak * sine(RATE), rtol=1e-6)
    assert sound.peak == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize("peak", [2.1, 4.0, 32768.0])
def test_a_float_file_in_another_unit_is_scaled_to_full_scale(tmp_path, peak):
    soundfile.write(tmp_path / "a.wav", 2 * peak * sine(RATE), RATE, subtype="FLOAT")
    sound = read_sound(tmp_path / "a.wav", RATE)
    assert np.abs(sound.wav).max() == pytest.approx(1)
    assert sound.peak == pytest.approx(peak, rel=1e-3)


def test_what_the_mono_mix_loses(tmp_path):
    """10 log10 of the channels' mean power over the power of their mean."""
    left, right = sine(RATE), sine(RATE, hertz=881.0)
    cases = {
        "equal": (left, left, 0.0),
        "independent": (left, right, 10 * np.log10(2)),
        "one side": (left, 0 * left, 10 * np.log10(2)),
        "half against": (left, -0.5 * left, 10 * np.log10(0.625 / 0.0625)),
    }
    for name, (one, other, loss) in cases.items():
        stereo = np.stack([one, other], axis=1)
        soundfile.write(tmp_path / f"{name}.wav", stereo, RATE, subtype="FLOAT")
        assert read_sound(tmp_path / f"{name}.wav", RATE).mix_loss == pytest.approx(loss, abs=0.05)


@pytest.mark.parametrize("channels", [[1, -1], [0.5, -0.6], [0.2, -1, 0.75]])
def test_of_channels_that_cancel_each_other_the_loudest_is_taken(tmp_path, channels):
    wav = sine(44100)[:, None] * np.array(channels)
    soundfile.write(tmp_path / "a.wav", wav, 44100, subtype="FLOAT")
    soundfile.write(tmp_path / "loudest.wav", wav[:, np.argmax(np.abs(channels))], 44100, "FLOAT")
    sound = read_sound(tmp_path / "a.wav", RATE)
    np.testing.assert_allclose(sound.wav, read_wav(tmp_path / "loudest.wav", RATE), atol=1e-6)
    assert sound.mix_loss > 10
    assert sound.swing > 0.2


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_a_constant_does_not_swing(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.full(rate, 0.3, np.float32), rate)
    assert read_sound(tmp_path / "a.wav", rate).swing == 0
    assert read_sound(tmp_path / "a.wav", RATE).swing == 0


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
    assert reason(path) == "truncated"


# Files that go on after the end which they state, or state none.


def with_bytes(path, *changes):
    content = bytearray(path.read_bytes())
    for place, new in changes:
        content[place : place + len(new)] = new
    path.write_bytes(content)


@pytest.mark.parametrize("size", [0, 1000, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_whose_header_does_not_know_its_length(tmp_path, size):
    """Recorders and pipes state 0, "unknown", or the length when they were last in time to."""
    write_wav(tmp_path / "a.wav", sine(RATE), RATE)
    with_bytes(tmp_path / "a.wav", (4, struct.pack("<I", size)), (40, struct.pack("<I", size)))
    sound = read_sound(tmp_path / "a.wav", RATE)
    np.testing.assert_allclose(sound.wav, sine(RATE), atol=1e-4)
    assert sound.length_wrong == (size <= 1000)


def test_chunks_after_the_samples_of_a_wav_are_no_sound(tmp_path):
    """Editors put titles and pictures there, which may take more room than the sound."""
    write_wav(tmp_path / "a.wav", sine(RATE), RATE)
    with open(tmp_path / "a.wav", "ab") as file:
        file.write(b"LIST" + struct.pack("<I", 40_000) + bytes(40_000))
    sound = read_sound(tmp_path / "a.wav", RATE)
    assert (len(sound.wav), sound.length_wrong) == (RATE // 2, False)


def test_a_flac_of_unknown_length(tmp_path):
    soundfile.write(tmp_path / "a.flac", sine(RATE), RATE)
    content = (tmp_path / "a.flac").read_bytes()
    total = bytes([content[21] & 0xF0]) + bytes(4)  # the last 36 bits of STREAMINFO's lengths
    with_bytes(tmp_path / "a.flac", (21, total))
    np.testing.assert_allclose(read_wav(tmp_path / "a.flac", RATE), sine(RATE), atol=1e-4)


@pytest.mark.parametrize("quiet_first", [True, False])
@pytest.mark.parametrize("seconds", [2.0, 5.0])
def test_an_mp3_of_varying_bitrate_without_a_length(tmp_path, quiet_first, seconds):
    """libsndfile takes all frames to be as long as the first, and would stop early or not."""
    wav = noise(seconds, rate=44100)
    half = slice(0, len(wav) // 2) if quiet_first else slice(len(wav) // 2, None)
    wav[half] *= 1e-3
    write_coded(tmp_path / "a.mp3", wav, 44100)
    assert len(read_wav(tmp_path / "a.mp3", RATE)) / RATE == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".opus", ".mp3"])
def test_files_joined_one_after_the_other(tmp_path, suffix):
    """As `cat` or a web radio's recorder makes them; Ogg allows several by its standard."""
    parts = []
    for number, hertz in enumerate((440.0, 880.0, 660.0)):
        kind = {"format": "OGG", "subtype": "OPUS"} if suffix == ".opus" else {}
        path = tmp_path / f"{number}{suffix}"
        soundfile.write(path, sine(48000, 1.0, hertz), 48000, **kind)
        parts.append(path.read_bytes())
    (tmp_path / f"joined{suffix}").write_bytes(b"".join(parts))
    sound = read_sound(tmp_path / f"joined{suffix}", RATE)
    assert sound.length_wrong
    assert len(sound.wav) / RATE == pytest.approx(3, abs=0.2 if suffix == ".mp3" else 0.01)
    assert sound.peak < 0.6  # no crack where they meet
    for second, hertz in enumerate((440.0, 880.0, 660.0)):
        middle = sound.wav[round((second + 0.3) * RATE) : round((second + 0.8) * RATE)]
        assert np.abs(np.fft.rfft(middle)).argmax() * 2 == pytest.approx(hertz, abs=3)


def test_an_ogg_file_whose_streams_differ_in_rate(tmp_path):
    parts = []
    for rate in (44100, 22050):
        soundfile.write(tmp_path / "a.ogg", sine(rate, 1.0), rate)
        parts.append((tmp_path / "a.ogg").read_bytes())
    (tmp_path / "a.ogg").write_bytes(b"".join(parts))
    wav = read_wav(tmp_path / "a.ogg", RATE)
    assert len(wav) / RATE == pytest.approx(2, abs=0.01)
    for start in (0.2, 1.2):
        middle = wav[round(start * RATE) : round((start + 0.5) * RATE)]
        assert np.abs(np.fft.rfft(middle)).argmax() * 2 == pytest.approx(440, abs=3)


@pytest.mark.parametrize("suffix", [".wav", ".aiff"])
def test_wavs_joined_are_refused_and_not_halved(tmp_path, suffix):
    soundfile.write(tmp_path / f"a{suffix}", sine(RATE), RATE)
    once = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(once + once)
    assert reason(tmp_path / f"a{suffix}") == "several files joined into one"


@pytest.mark.parametrize("suffix", [".m4a", ".mp4", ".webm", ".opus"])
def test_what_downloaders_leave(tmp_path, suffix):
    write_coded(tmp_path / f"a{suffix}", sine(48000, 1.0))
    wav = read_wav(tmp_path / f"a{suffix}", RATE)
    assert len(wav) / RATE == pytest.approx(1, abs=0.05)
    assert np.abs(np.fft.rfft(wav[4000:12000])).argmax() * 2 == pytest.approx(440, abs=3)


@pytest.mark.parametrize("suffix", [".m4a", ".webm"])
def test_what_downloaders_leave_half_done(tmp_path, suffix):
    path = write_coded(tmp_path / f"a{suffix}", noise(5.0, rate=48000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(path) in ("truncated", "not decodable")


def test_lists_of_other_files_are_not_followed(tmp_path):
    """ffmpeg's playlists could name any file or address."""
    write_wav(tmp_path / "secret.wav", sine(RATE), RATE)
    (tmp_path / "a.wav").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/secret.wav'\n")
    assert reason(tmp_path / "a.wav") == "not decodable"
    (tmp_path / "b.wav").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/secret.wav\n")
    assert reason(tmp_path / "b.wav") == "not decodable"


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
