"""A sound to be changed: what a sampler is given of it, and how it takes up what was made."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from config.model_schema import AutoencoderKLConfig
from config.schema import MelConfig
from models.tta.ldm.sampling import SamplingSettings, Sound
from processors.mel import mel_of_wav, shortest_wav
from processors.regions import (
    channel_gains,
    put_above,
    put_back,
    remade_columns,
    remade_rows,
)
from utils.audio import ANTIPHASE_DB, LOUDEST, Recording, read_recording, read_sound
from utils.decode import AudioError
from utils.errors import UserError

# samples [T, channels], their rate, and what was made, alike -> the result, and bool [T], where it
# is not the samples
WayIn = Callable[[np.ndarray, int, np.ndarray], tuple[np.ndarray, np.ndarray]]


class SourceMel(NamedTuple):
    """What a pipeline is given of a sound."""

    mel: Tensor  # [1, 1, n_mel, frames], padded with silence to whole columns of the latent
    remade: Tensor  # bool [n_mel / f, frames / f]: where the latent is made anew


@dataclass(frozen=True)
class Source:
    """A sound in any format, rate and number of channels."""

    recording: Recording
    wav: np.ndarray  # [T] float32, mono, at the model's rate
    gains: np.ndarray  # [channels]: of `wav` in each channel

    @classmethod
    def read(cls, path: str | Path, sample_rate: int) -> Source:
        """Raises UserError where there is no usable sound."""
        recording = read_recording(path)
        try:
            sound = read_sound(path, sample_rate)
        except AudioError as error:
            raise UserError(f"{path}: {error}") from None
        mono = recording.samples.mean(axis=1)
        if sound.mix_loss > ANTIPHASE_DB:
            mono = recording.samples[:, sound.loudest_channel]
        gains = channel_gains(recording.samples, mono)
        level = sound.peak if sound.peak > LOUDEST else 1.0  # what it was scaled by
        return cls(recording, sound.wav, gains * level)

    @property
    def seconds(self) -> float:
        return self.recording.seconds

    def for_sampling(
        self, settings: SamplingSettings, mel: MelConfig, vae: AutoencoderKLConfig
    ) -> SourceMel:
        """The mel of the sound, and what the settings say is to be made of its latent.

        Raises:
            UserError: the sound is too short for a mel; or, of the cut-off, that nothing lies
                above it or below it for this model.
            ValueError: the settings' duration is not that of this sound.
        """
        if abs(settings.duration - settings.extend - self.seconds) > 1e-3:
            raise ValueError(f"a sound of {self.seconds} s, and settings for {settings.duration} s")
        if len(self.wav) < shortest_wav(mel):
            raise UserError(f"audio {settings.audio}: {self.seconds:.3f} s are too short for a mel")
        _, rows, columns = vae.latent_shape(mel.n_mel, settings.whole_frames(mel, vae.downsampling))
        remade = np.zeros((rows, columns), dtype=bool)
        if settings.task == "super_resolution":
            above = remade_rows(settings.cutoff, rows, mel)
            if above.all() or not above.any():
                raise UserError(
                    f"cutoff {settings.cutoff:g} Hz leaves {'nothing' if above.all() else 'all'} of"
                    f" the sound: the model hears {mel.fmin:g} to {mel.fmax:g} Hz, in {rows} parts"
                )
            remade[above] = True
        elif settings.regions:
            factor = vae.downsampling
            remade[:, remade_columns(settings.regions, columns, mel, factor)] = True
        else:
            remade[:] = True
        wav = _to_length(self.wav, columns * vae.downsampling * mel.hop_size)
        return SourceMel(torch.from_numpy(mel_of_wav(wav, mel))[None, None], torch.tensor(remade))

    def finished(
        self,
        sound: Sound,
        settings: SamplingSettings,
        mel: MelConfig,
        unedited: np.ndarray | None = None,
    ) -> Sound:
        """The sound with what was made put into it; all else is as it was, bit for bit.

        Without regions and task it is what was made: mono, at the model's rate.

        unedited: the mel [n_mel, frames] that the model makes of the sound without an edit, where
            the settings say `needs_unedited`.
        """
        before = mel_of_wav(_to_length(self.wav, settings.frames(mel) * mel.hop_size), mel)
        sound = dataclasses.replace(sound, before=before)
        if settings.task == "super_resolution":
            rate = max(self.recording.sample_rate, mel.sample_rate)
            samples = resampled(self.recording.samples, self.recording.sample_rate, rate)
            made = self._in_channels(sound.wav, mel.sample_rate, rate, len(samples))
            result, share = put_above(samples, rate, made, settings.cutoff), None
        elif settings.regions:
            rate = self.recording.sample_rate
            samples = _to_length(self.recording.samples, round(settings.duration * rate))
            made = self._in_channels(sound.wav, mel.sample_rate, rate, len(samples))
            way_in = self.way_in(sound, settings, mel, unedited)
            result, touched = way_in(samples, rate, made)
            share = 1 - float(touched.mean())
        else:
            return sound
        mono = resampled(result @ (self.gains / (self.gains @ self.gains)), rate, mel.sample_rate)
        wav = _to_length(mono.astype(np.float32), len(sound.wav))
        shown = mel_of_wav(_to_length(wav, before.shape[1] * mel.hop_size), mel)
        recording = Recording(result.astype(np.float32), rate, self.recording.bits)
        return dataclasses.replace(sound, mel=shown, wav=wav, recording=recording, kept=share)

    def way_in(
        self, sound: Sound, settings: SamplingSettings, mel: MelConfig, unedited: np.ndarray | None
    ) -> WayIn:
        """How the sound that was made gets into this one."""
        return functools.partial(put_back, regions=settings.regions)

    def _in_channels(self, wav: np.ndarray, rate: int, to: int, length: int) -> np.ndarray:
        """wav [T] at `rate` -> [length, channels] at the rate `to`, each channel at its level."""
        return _to_length(resampled(wav, rate, to), length)[:, None] * self.gains


def resampled(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """[T] or [T, channels] at `rate` Hz -> the same at `to` Hz (soxr, high quality)."""
    import soxr

    return samples if rate == to else soxr.resample(samples, rate, to, "HQ")


def _to_length(samples: np.ndarray, length: int) -> np.ndarray:
    """The first `length` samples, of [T] or [T, channels], with silence after a shorter sound."""
    missing = max(length - len(samples), 0)
    return np.pad(samples, [(0, missing)] + [(0, 0)] * (samples.ndim - 1))[:length]
