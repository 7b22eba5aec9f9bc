"""What an edit changes of a sound, done to the sound's own spectrum.

What an autoencoder and a vocoder make of a sound is never quite the sound, also where nothing was
edited. So the mel of what was made is held beside the mel that the autoencoder makes of the sound
unedited. Their difference is the edit, and it alone is done: what goes is turned down in the sound
itself, as a mask that separates sources does (Wang & Chen 2018, arXiv:1708.07524, section III), and
what comes is added from what was made. Phases, channels and detail of all else stay the sound's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from config.schema import MelConfig
from processors.regions import RANGE, Region, places

OVERLAP = 4  # windows that hear a sample
MASKED = 0.5  # nepers (4.3 dB)
BLOCK = 2**18  # samples that are transformed at a time


def change_of(made: np.ndarray, unedited: np.ndarray) -> np.ndarray:
    """The edit in nepers; what lies more than `RANGE` below the louder one's peak is silence.

    made, unedited: mels [n_mel, frames], logarithms of magnitudes.
    """
    floor = max(made.max(), unedited.max()) - RANGE
    return np.maximum(made, floor) - np.maximum(unedited, floor)


def one_way(made: np.ndarray, unedited: np.ndarray, only: str | None) -> np.ndarray:
    """The mel that was made, of which only what "comes" or "goes" is taken; None: all of it."""
    ways = {"comes": np.maximum, "goes": np.minimum}
    return ways[only](made, unedited) if only else made


def with_change(
    samples: np.ndarray,
    rate: int,
    made: np.ndarray,
    change: np.ndarray,
    regions: Sequence[Region],
    mel: MelConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """The samples with the change in the regions, which fades in and out around them.

    A band and frame that changes by c nepers keeps its own spectrum at exp(min(c, 0)) of its
    magnitude. Where c > 0, what was made comes to it at the share sqrt(1 - exp(-2 c)): of the power
    that is there then, what was not there before. Where more than `MASKED` goes, what is left in
    the sound's own spectrum is of that which goes and not of what lay below it; by twice that
    change what was made has taken its place, with weights whose squares add up to 1.

    Args:
        samples, made: [T, channels] at `rate` Hz.
        change: [n_mel, frames], see `change_of`.

    Returns:
        [T, channels]; and bool [T], False where the samples are the given ones, bit for bit
    """
    place = places(len(samples), rate, regions)
    result = samples.copy()
    edges = np.flatnonzero(np.diff(place > 0, prepend=False, append=False))
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        for first in range(begin, end, BLOCK):
            part = slice(first, min(first + BLOCK, end))
            difference = _difference(samples, rate, made, change, part, mel)
            result[part] += place[part, None] * difference
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
    # Windows begin at whole hops of the sound, so that no result depends on its parts.
    begin = max(part.start // hop - OVERLAP, 0) * hop
    end = min(part.stop + n_fft, len(samples))

    def spectrum(sound: np.ndarray) -> torch.Tensor:
        wav = torch.from_numpy(np.ascontiguousarray(sound[begin:end].T, np.float64))
        return torch.stft(wav, n_fft, hop, window=window, pad_mode="constant", return_complex=True)

    before = spectrum(samples)
    frequencies = np.arange(before.shape[1]) * rate / n_fft
    seconds = (begin + np.arange(before.shape[2]) * hop) / rate
    nepers = torch.from_numpy(_between(change, frequencies, seconds, mel))
    share = (1 - (-2 * nepers.clamp(min=0)).exp()).sqrt()
    angle = (-nepers / MASKED - 1).clamp(0, 1) * torch.pi / 2
    own = nepers.clamp(max=0).exp() * angle.cos()
    difference = (own - 1) * before + (share + angle.sin()) * spectrum(made)
    wav = torch.istft(difference, n_fft, hop, window=window, length=end - begin).numpy().T
    return wav[part.start - begin : part.stop - begin]


def _between(
    change: np.ndarray, frequencies: np.ndarray, seconds: np.ndarray, mel: MelConfig
) -> np.ndarray:
    """A change [n_mel, frames] at any frequencies (Hz) and times, between the bands' middles and
    those of the frames; beyond the first and last, it is theirs."""
    import librosa  # takes a second

    middles = librosa.mel_frequencies(mel.n_mel + 2, fmin=mel.fmin, fmax=mel.fmax)[1:-1]
    times = (np.arange(change.shape[1]) + 0.5) / mel.frames_per_second
    in_time = np.stack([np.interp(seconds, times, band) for band in change])
    weights = np.stack([np.interp(frequencies, middles, band) for band in np.eye(len(middles))])
    return weights.T @ in_time
