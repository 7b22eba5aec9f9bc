"""Where regions lie in a latent, and how what was made gets back into a sound."""

import numpy as np
import pytest

from config.schema import MelConfig
from processors.mel import mel_of_wav
from processors.regions import (
    CROSSOVER,
    FADE,
    LISTENED,
    MARGIN,
    NEARBY,
    changed_regions,
    channel_gains,
    put_above,
    put_back,
    remade_columns,
    remade_rows,
)
from tests.tiny import MEL

LARGE = MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)


@pytest.mark.parametrize("mel", [MEL, LARGE], ids=["tiny", "16 kHz"])
@pytest.mark.parametrize(
    "share", [(0.0, 0.1), (0.31, 0.32), (0.4, 0.7), (0.502, 0.582), (0.7, 1.0)]
)
def test_all_frames_that_hear_a_region_are_made(mel, share):
    """Found by changing the region's samples; and no more than the margin besides."""
    factor, columns = 8, 12
    length = columns * factor * mel.hop_size
    begin, end = (round(part * length) for part in share)
    wav = np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)
    other = wav.copy()
    other[begin:end] = np.random.default_rng(1).normal(0, 0.1, end - begin)
    changed = (mel_of_wav(wav, mel) != mel_of_wav(other, mel)).any(axis=0)
    heard = changed.reshape(columns, factor).any(axis=1)
    wider = np.convolve(heard, np.ones(2 * MARGIN + 1), "same") > 0
    rate = mel.sample_rate
    found = remade_columns([(begin / rate, end / rate)], columns, mel, factor)
    assert found.tolist() == wider.tolist()


def test_regions_are_all_made():
    columns = [remade_columns(regions, 40, LARGE, 8) for regions in ([(0, 0.5)], [(3, 3.2)])]
    both = remade_columns([(0, 0.5), (3, 3.2)], 40, LARGE, 8)
    assert (both == (columns[0] | columns[1])).all()
    assert 0 < both.sum() < 20


@pytest.mark.parametrize("cutoff", [1000, 2000, 4000, 7000])
def test_rows_that_hear_what_is_above_the_cutoff_are_made(cutoff):
    bands = 80 // 10
    found = remade_rows(cutoff, 10, LARGE)
    assert found.tolist() == sorted(found)  # from one row on
    seconds = np.arange(8192) / LARGE.sample_rate
    for frequency in (0.8 * cutoff, 0.95 * cutoff, 1.1 * cutoff):
        tone = 0.5 * np.sin(2 * np.pi * frequency * seconds)
        loudest = mel_of_wav(tone.astype(np.float32), LARGE).mean(axis=1).argmax()
        if frequency > cutoff * (1 - CROSSOVER):
            assert found[loudest // bands]
    assert not found[0]


def test_a_cutoff_that_leaves_nothing_or_all():
    assert remade_rows(20, 10, LARGE).all()
    assert not remade_rows(9500, 10, LARGE).any()


@pytest.mark.parametrize("rate", [8000, 44100])
def test_what_is_put_back_is_exact_inside_and_nothing_else_changes(rate):
    random = np.random.default_rng(1)
    samples = random.normal(0, 0.1, (2 * rate, 2)).astype(np.float32)
    made = random.normal(0, 0.1, (2 * rate, 2)).astype(np.float32)
    regions = [(0.0, 0.2), (0.7, 1.1), (1.12, 1.3), (1.9, 2.0)]
    found, touched = put_back(samples, rate, made, regions)
    inside = np.zeros(len(samples), dtype=bool)
    near = inside.copy()
    for begin, end in regions:
        first, last, fade = round(begin * rate), round(end * rate), round(FADE * rate)
        inside[first:last] = True
        near[max(first - fade, 0) : last + fade] = True
    np.testing.assert_allclose(found[inside], made[inside], atol=1e-7)
    assert (found[~near] == samples[~near]).all()
    assert touched.tolist() == near.tolist()
    assert (found[near & ~inside] != samples[near & ~inside]).any(axis=1).all()


def test_the_power_stays_where_unrelated_sounds_cross_over():
    random = np.random.default_rng(2)
    before, made = (random.normal(size=(1000, 4000)).astype(np.float32) for _ in range(2))
    found, touched = put_back(before, 4000, made, [(0.1, 0.15)])
    assert 1000 > touched.sum() > 200 + 2 * 100
    assert found.std(axis=1) == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize("length", [16000, 15991])
def test_the_band_below_the_cutoff_is_the_sound_s(length):
    seconds = np.arange(length)[:, None] / 16000

    def low(frequency):
        return np.sin(2 * np.pi * frequency * seconds)

    sound, made = low(1000) + 0.5 * low(7000), 0.3 * low(1500) + 0.7 * low(5000)
    found = put_above(sound, 16000, made, 4000)
    middle = slice(2000, -2000)
    expected = low(1000) + 0.7 * low(5000)
    np.testing.assert_allclose(found[middle], expected[middle], atol=0.01)
    noises = np.random.default_rng(3).normal(size=(2, length, 1))
    power = np.abs(np.fft.rfft(put_above(*(noises[0], 16000, noises[1]), 4000), axis=0)) ** 2
    band = slice(int(0.23 * length), int(0.25 * length))  # where they cross over
    assert power[band].mean() / power.mean() == pytest.approx(1, abs=0.25)


def test_channels_get_their_level_and_sign():
    sound = np.random.default_rng(4).normal(size=1000)
    panned = np.stack([1.5 * sound, 0.5 * sound], axis=1)
    np.testing.assert_allclose(channel_gains(panned, panned.mean(axis=1)), [1.5, 0.5])
    opposed = np.stack([sound, -sound], axis=1)
    np.testing.assert_allclose(channel_gains(opposed, opposed[:, 0]), [1, -1])
    assert channel_gains(np.zeros((9, 2)), np.zeros(9)).tolist() == [1, 1]


# ---------------------------------------------------------------- where an edit changed a sound


def changed(*parts: tuple[int, int, float]) -> np.ndarray:
    """A change of 312 frames, some bands of which become so many dB louder and some quieter."""
    change = np.zeros((80, 312))
    for begin, end, louder in parts:
        change[:, begin:end] += louder / 20 * np.log(10)
    change[::2] *= -1
    return change


def test_what_changed_is_found_with_what_is_near_it():
    """Frames of 16 ms; the mean over a window tells a step by half of the window on each side."""
    ((begin, end),) = changed_regions(changed((100, 180, 6.0)), 2.0, LARGE)
    seconds = 256 / 16000
    # The mean is over 2 dB where more than a third of the window lies in the change.
    reach = NEARBY + LISTENED / 6
    assert begin == pytest.approx(100 * seconds - reach, abs=seconds)
    assert end == pytest.approx(180 * seconds + reach, abs=seconds)


def test_less_than_the_threshold_is_no_change():
    assert changed_regions(changed((100, 180, 1.9)), 2.0, LARGE) == []
    assert changed_regions(changed(), 0.001, LARGE) == []
    assert len(changed_regions(changed((100, 180, 1.9)), 1.5, LARGE)) == 1


def test_changes_near_each_other_are_one_and_ends_are_the_sounds():
    apart = round(2 * NEARBY * 16000 / 256)
    near = changed((0, 50, 9.0), (50 + apart, 312, 9.0))
    assert changed_regions(near, 2.0, LARGE) == [(0.0, 312 * 256 / 16000)]
    far = changed((0, 50, 9.0), (80 + apart, 312, 9.0))
    (first, last) = changed_regions(far, 2.0, LARGE)
    assert first[0] == 0
    assert last[1] == 312 * 256 / 16000
    assert last[0] - first[1] > 0.1
