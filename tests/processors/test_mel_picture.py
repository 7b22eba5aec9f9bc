import math

import librosa
import numpy as np
import pytest
from PIL import Image

from config.schema import MelConfig
from processors.mel_picture import (
    BRIGHTEST,
    MAGMA,
    difference_rgb,
    height_of,
    mel_rgb,
    write_mel_picture,
)

FLOOR = math.log(1e-5)


def test_low_frequencies_are_at_the_bottom_and_time_runs_to_the_right():
    mel = np.full((4, 6), FLOOR)
    mel[0, 5] = BRIGHTEST  # lowest band, last frame
    picture = mel_rgb(mel)
    assert picture.shape == (4, 6, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[3, 5], MAGMA[-1])
    np.testing.assert_array_equal(picture[0, 0], MAGMA[0])


def test_louder_is_brighter():
    ramp = mel_rgb(np.linspace(FLOOR, BRIGHTEST, 200)[None]).astype(float)[0]
    luminance = ramp @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= -1).all()
    assert luminance[-1] > luminance[0] + 200


def test_what_is_beyond_the_scale_or_not_finite_is_drawn_too():
    picture = mel_rgb(np.array([[-100, 100, math.nan, math.inf, -math.inf]]))
    np.testing.assert_array_equal(picture[0], MAGMA[[0, -1, 0, 0, 0]])


def test_the_png_reads_back_as_the_picture(tmp_path):
    mel = np.random.default_rng(0).uniform(FLOOR, BRIGHTEST, (80, 33)).astype(np.float32)
    write_mel_picture(tmp_path / "mel.png", mel)
    with Image.open(tmp_path / "mel.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (99, 240))
        pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels[::3, ::3], mel_rgb(mel))
    np.testing.assert_array_equal(pixels[2::3, 2::3], mel_rgb(mel))


@pytest.mark.parametrize(
    "mel",
    [
        MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0),
        MelConfig(16000, 1024, 1024, 160, 64, 50.0, 7600.0),
    ],
)
def test_the_axis_is_where_librosa_has_the_bands(mel):
    middles = librosa.mel_frequencies(mel.n_mel + 2, fmin=mel.fmin, fmax=mel.fmax)[1:-1]
    heights = [height_of(hz, mel) for hz in middles]
    np.testing.assert_allclose(heights, (np.arange(mel.n_mel) + 0.5) / mel.n_mel, atol=1e-9)


def test_a_difference_shows_what_came_and_what_went():
    before = np.full((3, 2), -5.0)
    after = before + np.array([[10, 0], [0, 0], [0, -2]])  # of the lowest band, and of the highest
    rgb = difference_rgb(before, after)
    assert rgb[2, 0].tolist() == [255, 140, 50]
    assert rgb[0, 1].tolist() == [35, 75, 127]
    assert rgb.any(axis=2).sum() == 2
