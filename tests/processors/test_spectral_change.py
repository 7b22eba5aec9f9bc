"""Edits as changes of a sound's own spectrum, against closed forms of tones and of noise."""

import math

import numpy as np
import pytest

import processors.spectral_change as spectral_change
from config.schema import MelConfig
from processors.mel import mel_filter_bank, mel_of_wav
from processors.regions import FADE
from processors.spectral_change import RANGE, TAKEOVER, change_of, put_change

MEL = MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
LOW, HIGH = 500.0, 3000.0  # Hz, far apart among the bands


def tone(frequency, rate, seconds=2.0, level=0.2):
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def level_of(wav, frequency, rate):
    """Amplitude of a tone in the middle half of a wav."""
    middle = slice(len(wav) // 4, 3 * len(wav) // 4)
    times = np.arange(len(wav))[middle] / rate
    return 2 * abs((wav[middle] * np.exp(-2j * np.pi * frequency * times)).mean())


def bands(above, nepers, frames=125):
    """A change of the bands above a frequency."""
    filters = mel_filter_bank(MEL)
    middles = filters.argmax(axis=1) * MEL.sample_rate / MEL.n_fft
    return np.where(middles > above, nepers, 0.0)[:, None] * np.ones(frames)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("nepers", [-0.2, -0.45])
def test_what_goes_is_turned_down_in_the_sound_itself(rate, nepers):
    """In each channel, at any rate; what was made is not heard there."""
    low, high = tone(LOW, rate), tone(HIGH, rate)
    samples = np.stack([low + high, low - 0.5 * high], axis=1)
    made = np.random.default_rng(0).normal(0, 1, samples.shape)
    found, touched = put_change(samples, rate, made, bands(1500, nepers), [(0, 2)], MEL)
    assert touched.mean() > 0.99
    for channel, level in enumerate((0.2, 0.1)):
        assert level_of(found[:, channel], LOW, rate) == pytest.approx(0.2, rel=1e-3)
        expected = math.exp(nepers) * level
        assert level_of(found[:, channel], HIGH, rate) == pytest.approx(expected, rel=1e-3)


def test_what_goes_almost_wholly_is_as_what_was_made():
    """From 2 TAKEOVER on nothing is left of the sound's own; half way, powers of both add up."""
    random = np.random.default_rng(1)
    samples = random.normal(0, 0.1, (80000, 1))
    whole, some = [(0, 5)], np.ones((80, 313))
    for nepers in (2, 3):
        made = 1e-3 * random.normal(0, 0.1, samples.shape)  # nowhere louder than the sound
        found, _ = put_change(samples, 16000, made, -nepers * TAKEOVER * some, whole, MEL)
        np.testing.assert_allclose(found, made, atol=1e-4)
        assert np.vdot(found, made) / np.vdot(made, made) == pytest.approx(1, abs=0.01)
    half, _ = put_change(samples, 16000, made, -1.5 * TAKEOVER * some, whole, MEL)
    own, new = math.exp(-1.5 * TAKEOVER) / math.sqrt(2), 1 / math.sqrt(2)
    np.testing.assert_allclose(half, own * samples + new * made, atol=2e-4)


def test_what_is_dropped_is_nowhere_louder_than_the_sound_was():
    """Also where the autoencoder hears more than there is, such as noise in silence."""
    random = np.random.default_rng(8)
    samples = random.normal(0, 0.1, (80000, 1))
    samples[32000:] *= 1e-3
    samples[56000:] = 0
    made, change = random.normal(0, 0.01, samples.shape), np.full((80, 313), -1.2)
    found, _ = put_change(samples, 16000, made, change, [(0, 5)], MEL)
    parts = [slice(2000, 30000), slice(34000, 54000), slice(58000, 80000)]
    levels = [found[part].std() for part in parts]
    assert levels[0] == pytest.approx(0.01, rel=0.05)
    assert 0.7e-4 < levels[1] <= 1e-4
    assert levels[2] < 1e-12


@pytest.mark.parametrize("nepers", [-0.4, -1.0, -2.0])
def test_what_the_model_does_not_hear_goes_as_its_nearest_band_does(nepers):
    """Not further, since nothing was made there."""
    rate, band = 44100, MelConfig(16000, 1024, 1024, 256, 80, 400.0, 8000.0)
    change = np.full((80, 125), nepers)
    for frequency in (200.0, 15000.0):
        samples = tone(frequency, rate)[:, None]
        found, _ = put_change(samples, rate, 0 * samples, change, [(0, 2)], band)
        expected = math.exp(nepers) * 0.2
        assert level_of(found[:, 0], frequency, rate) == pytest.approx(expected, rel=0.01)


def test_a_quiet_part_changes_however_loud_the_rest_is():
    """The floor is below the peak of the frames that are edited, which alone change."""
    before = np.full((80, 100), -9.0)
    before[:, :30] = 0
    made = before - 1
    heard = np.arange(100) >= 50
    assert not change_of(made, before)[:, 30:].any()
    change = change_of(made, before, heard=heard)
    np.testing.assert_allclose(change[:, 50:], -1)
    assert not change[:, :50].any()


def test_what_is_imagined_does_not_hide_what_goes():
    before = np.zeros((80, 50))
    made = before - 2
    made[3, 7] = 6
    change = change_of(made, before, "goes")
    assert change[3, 7] == 0
    np.testing.assert_allclose(np.delete(change, 7, axis=1), -2)


@pytest.mark.parametrize("nepers", [0.1, 0.7, 5.0])
def test_what_comes_is_added_from_what_was_made(nepers):
    """So much that noise whose power is exp(2 c) of the sound's makes just that of both."""
    random = np.random.default_rng(2)
    samples = random.normal(0, 0.1, (160000, 1))
    made = math.exp(nepers) * random.normal(0, 0.1, (160000, 1))
    change = np.full((80, 625), nepers)
    found, _ = put_change(samples, 16000, made, change, [(0, 10)], MEL)
    share = math.sqrt(1 - math.exp(-2 * nepers))
    np.testing.assert_allclose(found, samples + share * made, atol=1e-9)
    assert found.std() == pytest.approx(made.std(), rel=0.02)


def test_no_change_and_no_region_leave_every_bit():
    random = np.random.default_rng(3)
    samples = random.normal(0, 0.1, (88200, 2)).astype(np.float32)
    made = random.normal(0, 0.1, samples.shape).astype(np.float32)
    change = random.normal(0, 1, (80, 125))
    found, touched = put_change(samples, 44100, made, change, [(0.5, 0.7), (1.2, 1.3)], MEL)
    assert found.dtype == samples.dtype
    assert np.array_equal(found[~touched], samples[~touched])
    beside = round(FADE * 44100)
    inside = np.zeros(len(samples), dtype=bool)
    for begin, end in ((0.5, 0.7), (1.2, 1.3)):
        inside[round(begin * 44100) - beside : round(end * 44100) + beside] = True
    assert not touched[~inside].any()
    assert touched[inside].mean() > 0.99
    same, _ = put_change(samples, 44100, made, 0 * change, [(0, 2)], MEL)
    np.testing.assert_allclose(same, samples, atol=1e-7)
    none, touched = put_change(samples, 44100, made, change, [], MEL)
    assert np.array_equal(none, samples)
    assert not touched.any()


def test_a_change_has_its_place_in_time_and_fades_at_a_regions_ends():
    """Of a change in frames 60 to 65, the middle of its half neper is heard there, at any rate."""
    rate = 44100
    samples, made = np.ones((2, 2 * rate, 1))
    samples[:, 0] = tone(HIGH, rate)
    change = np.zeros((80, 125))
    change[:, 60:66] = -0.45
    found, _ = put_change(samples, rate, 0 * made, change, [(0, 2)], MEL)
    lost = np.square(samples - found)[:, 0]
    middle = (lost * np.arange(len(lost))).sum() / lost.sum() / rate
    assert middle == pytest.approx(63 * 256 / 16000, abs=1e-3)
    cut, touched = put_change(samples, rate, 0 * made, change, [(0, 1.0)], MEL)
    edge = round(1.0 * rate)
    np.testing.assert_allclose(cut[:edge], found[:edge])
    fade = round(FADE * rate)
    weights = 1 - np.arange(1, fade + 1)[:, None] / (fade + 1)
    difference = (found - samples)[edge : edge + fade]
    np.testing.assert_allclose(
        cut[edge : edge + fade], samples[edge : edge + fade] + weights * difference, atol=1e-9
    )
    assert not touched[edge + fade :].any()


@pytest.mark.parametrize("block", [1000, 16384])
def test_blocks_do_not_matter(monkeypatch, block):
    random = np.random.default_rng(4)
    samples, made = random.normal(0, 0.1, (2, 40000, 1))
    change, regions = random.normal(0, 1, (80, 157)), [(0.1, 0.9), (1.0, 2.5)]
    whole, _ = put_change(samples, 16000, made, change, regions, MEL)
    monkeypatch.setattr(spectral_change, "BLOCK", block)
    found, _ = put_change(samples, 16000, made, change, regions, MEL)
    np.testing.assert_allclose(found, whole, atol=1e-12)


def test_a_change_is_that_of_two_mels_and_none_in_what_cannot_be_heard():
    random = np.random.default_rng(5)
    wav = random.normal(0, 0.1, 16000).astype(np.float32)
    before = mel_of_wav(wav, MEL)
    np.testing.assert_allclose(change_of(before - 0.5, before), -0.5, atol=1e-6)
    quiet = before.max() - RANGE - 1
    before[:40], made = quiet - 3, before.copy()
    made[:40] = quiet
    assert not change_of(made, before).any()
    assert not change_of(before, made).any()
    assert change_of(before - 20, before).min() == pytest.approx(-RANGE, abs=1e-5)


def test_a_change_is_what_comes_or_what_goes_alone():
    before = np.random.default_rng(6).normal(0, 0.2, (80, 40))
    made = before + np.random.default_rng(7).normal(0, 0.5, before.shape)
    both, comes, goes = (change_of(made, before, only) for only in (None, "comes", "goes"))
    assert comes.min() == goes.max() == 0
    np.testing.assert_array_equal(comes + goes, both)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
def test_narrow_bands_that_hear_no_bin_count_for_nothing():
    narrow = MelConfig(16000, 256, 256, 128, 128, 0.0, 8000.0)
    assert (mel_filter_bank(narrow).sum(axis=1) == 0).any()
    samples = tone(LOW, 16000)[:, None]
    change = np.full((128, 250), -0.3)
    found, _ = put_change(samples, 16000, samples, change, [(0, 2)], narrow)
    np.testing.assert_allclose(found, math.exp(-0.3) * samples, atol=1e-9)
