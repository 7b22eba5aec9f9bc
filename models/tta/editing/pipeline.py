"""A mel and an instruction to another mel, and the editor's folder on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from config.model_schema import SamplerName, fault_of_steps
from config.schema import AUDITExperiment
from config.typed_json import ConfigError, Count, NotNegative, Text, typed
from models.tta.autoencoder.saved import load_vae, save_vae
from models.tta.ldm.pipeline import Pipeline, PipelineSettings
from models.tta.ldm.sampling import Denoiser, make_scheduler, sample, starting_noise
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.tta.pipeline_json import read_settings, write_settings
from processors.dataset import SILENCE
from processors.mel import check_mel
from utils.checkpoint import load_tensors, load_weights, save_tensors
from utils.device import graphed, memory_format
from utils.run_folder import WEIGHTS

MODEL_TYPE = "AUDIT"


@typed
class EditSettings:
    """All that makes an edit of a sound, an instruction and the weights; a receipt holds it.

    Raises:
        ConfigError: a value is out of its range; the message begins with its name.
    """

    sampler: SamplerName
    num_steps: Count
    text_guidance: Annotated[float, Field(ge=1)]  # 1 is no guidance by the instruction
    source_guidance: NotNegative  # 1 is no guidance by the sound
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0  # of the first edit; the next has one more


@typed
class EditorSettings(PipelineSettings):
    """What an editor's pipeline.json holds."""

    tasks: list[Text]  # that it was trained for
    editing: EditSettings  # where nothing else is asked for

    @classmethod
    def of(cls, config: AUDITExperiment, tasks: Sequence[str] = ()) -> EditorSettings:
        """Those of a training on these tasks."""
        inference = config.inference
        editing = EditSettings(
            inference.sampler,
            inference.num_steps,
            inference.guidance_scale,
            inference.source_guidance,
        )
        return cls(**vars(PipelineSettings.of(config)), tasks=list(tasks), editing=editing)

    @classmethod
    def read(cls, folder: Path) -> EditorSettings:
        """Those of an editor's checkpoint or final folder."""
        return read_settings(folder, MODEL_TYPE, cls)

    def write(self, folder: Path) -> None:
        write_settings(folder, MODEL_TYPE, self)

    def editing_with(self, **changes: object) -> EditSettings:
        """The settings of an edit with those changes that are not None, checked."""
        given = {name: value for name, value in changes.items() if value is not None}
        editing = dataclasses.replace(self.editing, **given)
        steps, most = editing.num_steps, self.noise_scheduler.num_train_timesteps
        if fault := fault_of_steps(editing.sampler, steps, most):
            raise ConfigError(f"num_steps {steps} {fault}")
        return editing


class Editor(Pipeline):
    """What makes of texts and of the sounds to edit other sounds: mels, all of them."""

    settings: EditorSettings

    @torch.no_grad()
    def __call__(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        sources: Tensor | None = None,
        editing: EditSettings | None = None,
    ) -> Tensor:
        """mel [B, n_mel, frames], one for each text and seed, whatever else is in the batch.

        Args:
            texts: instructions; captions where there is no sound to edit.
            seeds: of the noise.
            sources: mels of the sounds to edit, [B, n_mel, frames]. None: there are none, and
                sounds of the training length are made of the texts alone.
            editing: None, the pipeline's own.
        """
        settings = self.settings
        editing = editing or settings.editing
        device = next(self.unet.parameters()).device
        frames = settings.frames if sources is None else sources.shape[2]
        factor = self.vae.config.downsampling
        shape = self.vae.config.latent_shape(settings.mel.n_mel, -(-frames // factor) * factor)
        scheduler = make_scheduler(editing.sampler, settings.noise_scheduler, editing.num_steps)
        with self.autocast():
            noise = starting_noise(shape, seeds, device)
            source = torch.zeros_like(noise) if sources is None else self.encode(sources)
            denoise = guided_by_both(
                self.unet,
                self.text_encoder,
                texts,
                source,
                editing.text_guidance,
                editing.source_guidance,
            )
            latent = sample(denoise, scheduler, noise)
            mels = self.vae.decode(self.vae.unscale(latent))
        return mels[:, 0, :, :frames].float()

    def encode(self, mels: Tensor) -> Tensor:
        """mels [B, n_mel, frames] -> the means of their scaled latents [B, z, h, w], on the device.

        Silence fills the last column.
        """
        device = next(self.unet.parameters()).device
        missing = -mels.shape[2] % self.vae.config.downsampling
        padded = F.pad(mels.to(device), (0, missing), value=SILENCE)[:, None]
        latent = self.vae.scale(self.vae.encode(padded).mean)
        return latent.contiguous(memory_format=memory_format(device))

    def write(self, folder: Path) -> None:
        """Writes all that `load_editor` takes."""
        self.settings.write(folder)
        save_tensors(folder / WEIGHTS[MODEL_TYPE], self.unet.state_dict())
        save_vae(folder / "vae", self.vae, self.settings.mel)
        self.text_encoder.save(folder / "text_encoder")


def load_editor(folder: Path, device: str | torch.device) -> Editor:
    """The editor in a checkpoint or final folder, to edit on `device`."""
    settings = EditorSettings.read(folder)
    saved = load_vae(folder / "vae")
    check_mel(settings.mel, saved.mel, folder / "vae")
    text = TextEncoder.from_pretrained(str(folder / "text_encoder"), settings.max_tokens)
    unet = UNet(settings.unet)
    weights = folder / WEIGHTS[MODEL_TYPE]
    load_weights(unet, load_tensors(weights), weights)
    return Editor(settings, unet, saved.vae, text).for_inference(torch.device(device))


def guided_by_both(
    unet: UNet,
    text_encoder: TextEncoder,
    texts: Sequence[str],
    source: Tensor,
    text_scale: float,
    source_scale: float,
) -> Denoiser:
    """The U-Net's prediction for these texts and sources [B, z, h, w], guided by both.

    With e(source, text), 0 for an empty source and "" for the empty text (Brooks et al. 2023,
    InstructPix2Pix, arXiv:2211.09800, eq. 3):

        e(0, "") + source_scale (e(source, "") - e(0, ""))
                 + text_scale (e(source, text) - e(source, ""))

    Those of the three whose weights in this sum are not 0 run as one batch.
    """
    count, empty, zeros = len(texts), [""] * len(texts), torch.zeros_like(source)
    terms = [
        (text_scale, texts, source),
        (source_scale - text_scale, empty, source),
        (1 - source_scale, empty, zeros),
    ]
    terms = [term for term in terms if term[0] != 0]
    said = [text for _, words, _ in terms for text in words]
    context = unet.prepare_text(*text_encoder.encode(said))
    sources = torch.cat([sound for _, _, sound in terms])
    network = None

    def denoise(latent: Tensor, timestep: Tensor) -> Tensor:
        nonlocal network
        inputs = torch.cat([latent.repeat(len(terms), 1, 1, 1), sources], dim=1)
        timesteps = timestep.to(latent.device).expand(len(inputs))
        if network is None:
            network = graphed(lambda x, t: unet(x, t, context=context), inputs, timesteps)
        predictions = network(inputs, timesteps).float().split(count)
        weighted = zip(terms, predictions, strict=True)
        return sum(weight * prediction for (weight, _, _), prediction in weighted)

    return denoise


def with_source_channels(weights: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """A text-to-audio U-Net's weights with `channels` more in front, which begin at zero.

    Whatever the sound to edit is, the network then begins with what it knows of the text (Brooks
    et al. 2023, section 3.2).
    """
    first = weights["conv_in.weight"]
    more = first.new_zeros(first.shape[0], channels, *first.shape[2:])
    return {**weights, "conv_in.weight": torch.cat([first, more], dim=1)}
