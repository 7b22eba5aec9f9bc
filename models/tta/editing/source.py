"""A sound to edit: what the editor hears of it, and what comes back."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config.model_schema import AutoencoderKLConfig
from config.schema import MelConfig
from config.typed_json import ConfigError
from models.tta.editing.pipeline import EditorSettings, EditSettings
from models.tta.ldm.sampling import Sound
from models.tta.ldm.source import Source, SourceMel, WayIn, resampled
from processors.clips import check_sound
from processors.regions import changed_regions, put_back, region_weights
from processors.spectral_change import change_of, put_change
from utils.audio import Sound as Decoded
from utils.decode import AudioError
from utils.errors import UserError

CHANGED = 2.0  # dB: more than an editor changes what it leaves


@dataclass(frozen=True)
class SoundToEdit(Source):
    """A sound in any format, rate and number of channels; all that is kept is kept as it is."""

    @classmethod
    def read_for(cls, path: str | Path, mel: MelConfig) -> SoundToEdit:
        """Raises UserError where there is none, or one that is silent or too short for a mel."""
        source = cls.read(path, mel.sample_rate)
        try:
            check_sound(Decoded(source.wav, swing=float(np.ptp(source.wav)) / 2), mel)
        except AudioError as error:
            raise UserError(f"{path}: {error}") from None
        return source

    def settings_for(
        self, editor: EditorSettings, audio: str, task: str | None, **changes: object
    ) -> EditSettings:
        """The editor's settings with those changes that are not None, for an edit of this sound.

        An edit of any task but super-resolution may be kept to a `region`; without, the editor
        works on all of the sound, and what it changes by no more than `changed_over` dB stays as it
        is. Without `cutoff`, it is half of the sound's rate where the model hears more.

        Raises:
            ConfigError: a value is out of its range; the message begins with its name.
        """
        half, region = self.recording.sample_rate / 2, changes.get("region")
        everywhere = task != "super_resolution" and not region
        if changes.get("changed_over") and not everywhere:
            raise ConfigError(
                "changed_over finds the region of an edit that has none; leave it out with a region"
                " and in super-resolution"
            )
        if task == "super_resolution":
            changes["task"] = task
            if changes.get("cutoff") is None and half < editor.mel.fmax:
                changes["cutoff"] = half
        else:
            changes["inpaint"] = task == "inpaint" and bool(region)
        if everywhere:
            changes["region"] = ((0.0, self.seconds),)
            if changes.get("changed_over") is None:
                changes["changed_over"] = CHANGED
        return editor.sampling_with(audio=audio, duration=self.seconds, **changes)

    def way_in(
        self, sound: Sound, settings: EditSettings, mel: MelConfig, unedited: np.ndarray | None
    ) -> WayIn:
        """As of any sound; or by what the edit changes, where it does."""
        if unedited is None:
            return super().way_in(sound, settings, mel, unedited)
        regions, frames = settings.regions, sound.mel.shape[1]
        heard = region_weights(frames, mel.frames_per_second, regions) > 0
        change = change_of(sound.mel, unedited[:, :frames], settings.only, heard)
        if settings.changed_over:
            regions = changed_regions(change, settings.changed_over, mel)
        if settings.in_own_spectrum:
            return functools.partial(put_change, change=change, regions=regions, mel=mel)
        return functools.partial(put_back, regions=regions)

    def for_sampling(
        self, settings: EditSettings, mel: MelConfig, vae: AutoencoderKLConfig
    ) -> SourceMel:
        """As of any sound, of one as the editor knows them from its training.

        A gap that it is to fill is silent; what is to get its upper band back has none.
        """
        rate, wav = mel.sample_rate, self.wav
        if settings.inpaint:
            wav = wav.copy()
            for begin, end in settings.region:
                wav[round(begin * rate) : round(end * rate)] = 0
        elif settings.task == "super_resolution" and 2 * settings.cutoff < rate:
            low = resampled(wav, rate, 2 * settings.cutoff)
            wav = resampled(low, 2 * settings.cutoff, rate)
        return Source.for_sampling(dataclasses.replace(self, wav=wav), settings, mel, vae)
