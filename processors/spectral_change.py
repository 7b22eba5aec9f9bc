"""What an edit changes of a sound, done to the sound's own spectrum.

What an autoencoder and a vocoder make of a sound is never quite the sound, also where nothing was
edited. So the mel of what was made is held beside the mel that the autoencoder makes of the sound
unedited. Their difference is the edit, and it alone is done: what goes is turned down in the sound
itself, as a mask that separates sources does (Wang & Chen 2018, arXiv:1708.07524, section III), and
what comes is added from what was made. Phases, channels and detail of all else stay the sound's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from config.schema import MelConfig
from processors.regions import Region, region_weights

Way = Literal["comes", "goes"]

RANGE = 7.0  # nepers (61 dB) below the peak in which a difference is looked for
TAKEOVER = 0.5  # nepers (4.3 dB) that go, beyond which what was made begins to take the place
OVERLAP = 4  # windows that hear a sample
BLOCK = 2**18  # samples that are transformed at a time


def change_of(
    made: np.ndarray, unedited: np.ndarray, only: Way | None = None, heard: np.ndarray | None = None
) -> np.ndarray:
    """The edit in nepers; what lies more than `RANGE` below the louder one's peak is silence.

    Args:
        made, unedited: mels [n_mel, frames], logarithms of magnitudes.
        only: what "comes" or what "goes"; None: both.
        heard: bool [frames], among which the peak is; None: all. Only they change.
    """
    if only is not None:
        made = (np.maximum if only == "comes" else np.minimum)(made, unedited)
    heard = np.ones(made.shape[1], dtype=bool) if heard is None else heard
    floor = max(made[:, heard].max(), unedited[:, heard].max()) - RANGE
    return (np.maximum(made, floor) - np.maximum(unedited, floor)) * heard


def put_change(
    samples: np.ndarray,
    rate: int,
    made: np.ndarray,
    change: np.ndarray,
    regions: Sequence[Region],
    mel: MelConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """The samples with the change in the regions, which fades in and out around them.

    With c nepers of change, a band and frame keeps exp(min(c, 0)) of its own magnitude. Where
    c > 0, what was made is added, times sqrt(1 - exp(-2 c)): if it is as loud as its mel says, the
    powers of both add up to what is wanted. Where more than `TAKEOVER` goes, what a mask leaves is
    mostly the rest of what should go. So what was made fades in in its place, with weights cos and
    sin, and from twice that change on it is all; but it is nowhere louder than the sound was, and
    frequencies that the model does not hear are turned down alone, as their nearest band is.

    Args:
        samples, made: [T, channels] at `rate` Hz.
        change: [n_mel, frames], see `change_of`.

    Returns:
        [T, channels]; and bool [T], False where the samples are the given ones, bit for bit
    """
    weights = region_weights(len(samples), rate, regions)
    result = samples.copy()
    edges = np.flatnonzero(np.diff(weights > 0, prepend=False, append=False))
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        for first in range(begin, end, BLOCK):
            part = slice(first, min(first + BLOCK, end))
            difference = _difference(samples, rate, made, change, part, mel)
            result[part] += weights[part, None] * difference
    return result, (result != samples).any(axis=1)


def _difference(
    samples: np.ndarray,
    rate: int,
    made: np.ndarray,
    change: np.ndarray,
    part: slice,
    mel: MelConfig,
) -> np.ndarray:
    """What the change adds to a part of the samples, [T of the part, channels]."""
    import torch

    hop = max(round(mel.n_fft * rate / mel.sample_rate / OVERLAP), 1)
    n_fft = OVERLAP * hop
    window = torch.hann_window(n_fft, dtype=torch.float64)
    # Windows begin at whole hops of the sound, so that the result does not depend on the parts.
    begin = max(part.start // hop - OVERLAP, 0) * hop
    end = min(part.stop + n_fft, len(samples))

    def spectrum(sound: np.ndarray) -> torch.Tensor:
        wav = torch.from_numpy(np.ascontiguousarray(sound[begin:end].T, np.float64))
        return torch.stft(wav, n_fft, hop, window=window, pad_mode="constant", return_complex=True)

    own, new = spectrum(samples), spectrum(made)
    frequencies = np.arange(own.shape[1]) * rate / n_fft
    seconds = (begin + np.arange(own.shape[2]) * hop) / rate
    nepers = torch.from_numpy(interpolated(change, frequencies, seconds, mel))
    comes = (1 - (-2 * nepers.clamp(min=0)).exp()).sqrt()
    takeover = (-nepers / TAKEOVER - 1).clamp(0, 1) * torch.pi / 2
    takeover[(frequencies < mel.fmin) | (frequencies > mel.fmax)] = 0
    kept = nepers.clamp(max=0).exp() * takeover.cos()
    quiet = (own.abs() / new.abs().clamp(min=1e-30)).clamp(max=1)
    difference = (kept - 1) * own + (comes + takeover.sin() * quiet) * new
    wav = torch.istft(difference, n_fft, hop, window=window, length=end - begin).numpy().T
    return wav[part.start - begin : part.stop - begin]


def interpolated(
    change: np.ndarray, frequencies: np.ndarray, seconds: np.ndarray, mel: MelConfig
) -> np.ndarray:
    """A change [n_mel, frames] at frequencies (Hz) and times (s): [frequencies, times].

    It is interpolated between the middles of bands and of frames; beyond the outermost ones, it is
    theirs.
    """
    import librosa  # takes a second

    middles = librosa.mel_frequencies(mel.n_mel + 2, fmin=mel.fmin, fmax=mel.fmax)[1:-1]
    times = (np.arange(change.shape[1]) + 0.5) / mel.frames_per_second
    in_time = np.stack([np.interp(seconds, times, band) for band in change])
    weights = np.stack([np.interp(frequencies, middles, band) for band in np.eye(len(middles))])
    return weights.T @ in_time
