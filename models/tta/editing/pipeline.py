"""A sound and an instruction to another sound's mel, and the editor's folder on disk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config.schema import AUDITExperiment
from config.typed_json import NotNegative, Text, typed
from models.tta.ldm.known import Known
from models.tta.ldm.pipeline import Pipeline, PipelineSettings
from models.tta.ldm.sampling import Denoiser, SamplingSettings, with_mean
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.tta.ldm.windows import by_windows
from models.tta.pipeline_json import read_settings, write_settings
from processors.spectral_change import Way
from utils.device import graphed
from utils.run_folder import WEIGHTS

MODEL_TYPE = "AUDIT"


@typed
class EditSettings(SamplingSettings):
    """All that makes an edit; `guidance_scale` is the instruction's."""

    source_guidance: NotNegative = 1.0  # by the sound; 1 takes it as it is
    changed_over: NotNegative = 0.0  # dB: where less changes, samples stay; 0: no part is left out
    inpaint: bool = False  # the region is silent in what the editor hears, and it fills the gap
    only: Way | None = None  # the part of a change that is done `in_own_spectrum`; None: both
    anew: bool = False  # regions become what was made, instead of a change of the own spectrum

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inpaint and not self.region:
            raise ValueError("region is missing: begin and end, in seconds, of what to inpaint")

    @property
    def in_own_spectrum(self) -> bool:
        """Whether what the edit changes is done to the sound's own spectrum (`put_change`)."""
        return bool(self.region) and not (self.anew or self.inpaint)

    @property
    def needs_unedited(self) -> bool:
        return self.in_own_spectrum or bool(self.changed_over)


def told_by(receipt: dict[str, Any]) -> dict[str, Any]:
    """An edit's receipt with what an older one does not tell.

    Before there was another way, all edits were made anew, as gaps and upper bands still are.
    """
    return {"anew": not (receipt.get("inpaint") or receipt.get("task")), **receipt}


@typed
class EditorSettings(PipelineSettings):
    """What an editor's pipeline.json holds."""

    sampling: EditSettings
    tasks: list[Text] = field(default_factory=list)  # that it was trained for

    @classmethod
    def of(cls, config: AUDITExperiment, tasks: Sequence[str] = ()) -> EditorSettings:
        """Those of a training on these tasks."""
        shared = vars(PipelineSettings.of(config))
        sampling = EditSettings(
            **vars(shared["sampling"]), source_guidance=config.inference.source_guidance
        )
        return cls(**{**shared, "sampling": sampling}, tasks=list(tasks))

    @classmethod
    def read(cls, folder: Path) -> EditorSettings:
        """Those of an editor's checkpoint or final folder."""
        return read_settings(folder, MODEL_TYPE, cls)

    def write(self, folder: Path) -> None:
        write_settings(folder, MODEL_TYPE, self)


class Editor(Pipeline):
    """What turns instructions and sounds into mels; captions alone, as a text-to-audio model."""

    settings_type = EditorSettings
    weights_file = WEIGHTS[MODEL_TYPE]

    def denoiser(
        self, texts: Sequence[str], sampling: EditSettings, noise: Tensor, known: Known | None
    ) -> Denoiser:
        """The U-Net's prediction for these texts and for the sound that is `known`."""
        source = torch.zeros_like(noise) if known is None else known.latent.expand_as(noise)
        scales, columns = (sampling.guidance_scale, sampling.source_guidance), noise.shape[3]
        predict = guided_by_both(
            self.unet,
            self.text_encoder,
            texts,
            sampling.negative_text,
            *scales,
            sampling.guidance_mean,
        )

        def denoise(latent: Tensor, timestep: Tensor) -> Tensor:
            both = torch.cat([latent, source], dim=1)
            return by_windows(lambda part: predict(part, timestep), both, columns, self.columns)

        return denoise


def guided_by_both(
    unet: UNet,
    text_encoder: TextEncoder,
    texts: Sequence[str],
    negative: str,
    text_scale: float,
    source_scale: float,
    mean_share: float = 1.0,
) -> Denoiser:
    """The U-Net's prediction for these texts, guided by text and sound.

    It is a function of [B, 2z, h, w], a noisy latent and the source's behind it. With the
    prediction e(source, text), "" for the negative text and 0 for no source, it is (Brooks et al.
    2023, InstructPix2Pix, arXiv:2211.09800, eq. 3)

        e(0, "") + source_scale (e(source, "") - e(0, ""))
                 + text_scale (e(source, text) - e(source, "")).

    Those of the three that count in this sum run as one batch. `mean_share`: see `with_mean`.
    """
    terms = [  # weight, texts, and whether the source is seen
        (text_scale, list(texts), 1.0),
        (source_scale - text_scale, [negative] * len(texts), 1.0),
        (1 - source_scale, [negative] * len(texts), 0.0),
    ]
    weights, said, seen = zip(*(term for term in terms if term[0] != 0), strict=True)
    context = unet.prepare_text(*text_encoder.encode([*itertools.chain(*said)]))
    network = None

    def denoise(both: Tensor, timestep: Tensor) -> Tensor:
        nonlocal network
        latent, source = both.chunk(2, dim=1)
        inputs = torch.cat([torch.cat([latent, share * source], dim=1) for share in seen])
        timesteps = timestep.to(latent.device).expand(len(inputs), *timestep.shape)
        if network is None:
            network = graphed(lambda x, t: unet(x, t, context=context), inputs, timesteps)
        predictions = network(inputs, timesteps).float().chunk(len(seen))
        total = sum(w * prediction for w, prediction in zip(weights, predictions, strict=True))
        return with_mean(total, predictions[0], mean_share)

    return denoise


def with_source_channels(weights: dict[str, Tensor], editor: UNet) -> dict[str, Tensor]:
    """A text-to-audio U-Net's weights with as many channels again to read, which begin at zero,
    and with the new `editor`'s way past the network, where it has one.

    Whatever the sound to edit is, the network then begins with what it knows of the text (Brooks
    et al. 2023, section 3.2).
    """
    first, new = weights["conv_in.weight"], editor.state_dict()
    more = first.new_zeros(first.shape)
    skip = {name: new[name] for name in new if name.startswith("input_skip.")}
    return {**weights, **skip, "conv_in.weight": torch.cat([first, more], dim=1)}
