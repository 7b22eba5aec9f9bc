"""Text to sound by latent diffusion: T5 -> sampler with the U-Net -> VAE decoder -> vocoder.

This file is the `pipeline.py` of an exported model. It needs torch, torchaudio,
diffusers and transformers:

    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(
        FOLDER, custom_pipeline="pipeline", trust_remote_code=True
    )
    wav = pipe("A man is whistling", generator=torch.Generator().manual_seed(0)).audios[0]

A mel is [mel bands, frames] here, and so are latents: bands before time.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from diffusers import (
    AudioPipelineOutput,
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UNet2DConditionModel,
)
from diffusers.models.embeddings import get_timestep_embedding
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from models.vocoders.griffin_lim import GriffinLim  # beside this file, in an export


class TextToAudioPipeline(DiffusionPipeline):
    """A text-to-audio model.

    Args:
        vae, unet, scheduler, text_encoder, tokenizer: what they are called.
        vocoder: a HiFi-GAN or a Vocos; None: Griffin-Lim, which needs no weights.
        mel: sample_rate (Hz), n_fft, win_size, hop_size (samples), n_mel, fmin, fmax (Hz).
        defaults: frames, num_inference_steps, guidance_scale of a call; max_tokens of a text;
                guidance_mean, the share of what guidance does to a channel's mean that is left.
    """

    _optional_components: ClassVar[list[str]] = ["vocoder"]

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerFast,
        vocoder: torch.nn.Module | None,
        mel: dict | None = None,
        defaults: dict | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            vocoder=vocoder,
        )
        self.register_to_config(mel=mel, defaults=defaults)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str = "",
        audio_length_in_s: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "np",
    ) -> AudioPipelineOutput:
        """Sounds, one for each prompt.

        Args:
            prompt: what to hear.
            negative_prompt: what not to hear.
            audio_length_in_s: seconds; None: the length that the model was trained at.
            num_inference_steps, guidance_scale: None: the model's own; a scale of 1 is no guidance.
            generator: on the CPU; a list gives each sound its own.
            output_type: "np" for wavs [B, T] in [-1, 1], "pt" for the same as a tensor, "mel" for
                log mels [B, n_mel, frames] as a tensor.
        """
        mel, defaults = self.config.mel, self.config.defaults
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        frames = defaults["frames"]
        samples = frames * mel["hop_size"]
        if audio_length_in_s is not None:
            frames = max(1, math.ceil(audio_length_in_s * mel["sample_rate"] / mel["hop_size"]))
            samples = round(audio_length_in_s * mel["sample_rate"])
        if guidance_scale is None:
            guidance_scale = defaults["guidance_scale"]
        steps = num_inference_steps or defaults["num_inference_steps"]
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):  # steps of equal length
            self.scheduler.set_timesteps(sigmas=np.linspace(1, 0, steps, endpoint=False))
        else:
            self.scheduler.set_timesteps(steps)
        if hasattr(self.scheduler, "set_begin_index"):  # two steps may round to one timestep
            self.scheduler.set_begin_index(0)

        latent = self._noise(len(prompts), frames, generator)
        latent = self._denoise(latent, prompts, negative_prompt, guidance_scale)
        log_mel = self.vae.decode(latent / self.vae.config.scaling_factor).sample
        log_mel = log_mel[:, 0, :, :frames].float()
        if output_type == "mel":
            return AudioPipelineOutput(audios=log_mel)
        wav = self._to_wav(log_mel)[:, :samples]
        return AudioPipelineOutput(audios=wav.cpu().numpy() if output_type == "np" else wav)

    def _noise(self, count: int, frames: int, generator) -> torch.Tensor:
        """[B, z, n_mel / f, frames / f], drawn on the CPU: a seed means the same anywhere."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        n_mel = self.config.mel["n_mel"]
        shape = (self.vae.config.latent_channels, n_mel // factor, -(-frames // factor))
        generators = generator if isinstance(generator, list) else [generator] * count
        noise = torch.stack([torch.randn(shape, generator=g) for g in generators])
        noise = noise.to(self.unet.device, self.unet.dtype)
        return noise * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def _denoise(
        self, latent: torch.Tensor, prompts: list[str], negative: str, guidance: float
    ) -> torch.Tensor:
        guided = guidance != 1
        text, mask = self._encode([*prompts, *([negative] * len(prompts))] if guided else prompts)
        for timestep in self.progress_bar(self.scheduler.timesteps):
            inputs = torch.cat([latent, latent]) if guided else latent
            if hasattr(self.scheduler, "scale_model_input"):
                inputs = self.scheduler.scale_model_input(inputs, timestep)
            prediction = self._predict(inputs, timestep, text, mask)
            if guided:  # classifier-free guidance (arXiv:2207.12598, eq. 6)
                prompted, empty = prediction.chunk(2)
                prediction = empty + guidance * (prompted - empty)
                more = (prediction - prompted).mean((2, 3), keepdim=True)
                prediction = prediction - (1 - self.config.defaults["guidance_mean"]) * more
            latent = self.scheduler.step(prediction, timestep, latent).prev_sample
        return latent

    def _predict(
        self, latent: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """The U-Net's prediction; a place of it may be a patch of the latent's places."""
        size = math.isqrt(self.unet.config.in_channels // self.vae.config.latent_channels)
        height, width = latent.shape[2:]
        patches = torch.nn.functional.pad(latent, (0, -width % size, 0, -height % size))
        patches = torch.nn.functional.pixel_unshuffle(patches, size)
        timestep = timestep.to(latent.device)
        predicted = self.unet(
            patches,
            timestep,
            text,
            class_labels=self._pooled(text, mask),
            timestep_cond=self._span_embedding(timestep, len(latent)),
            encoder_attention_mask=mask,
        ).sample
        return torch.nn.functional.pixel_shuffle(predicted, size)[:, :, :height, :width]

    def _pooled(self, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        """The mean of a text's states [B, D], where the U-Net hears it along with the time."""
        if self.unet.config.class_embed_type is None:
            return None
        weights = mask[..., None].to(text.dtype)
        return (weights * text).sum(1) / weights.sum(1)

    def _span_embedding(self, timestep: torch.Tensor, count: int) -> torch.Tensor | None:
        """Sinusoids of a step's length [B, D], where the U-Net is a flow map."""
        width, span = self.unet.config.time_cond_proj_dim, torch.zeros(())
        if width is None:
            return None
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            place = int((self.scheduler.timesteps == timestep.cpu()).nonzero())
            end = self.scheduler.sigmas[place + 1] * self.scheduler.config.num_train_timesteps
            span = timestep.cpu() - end
        embedding = get_timestep_embedding(
            span.expand(count), width, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        return embedding.to(timestep.device, self.unet.dtype)

    def _encode(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """T5 states [B, L, D] and mask [B, L]; a text's last token is its end, then come pads."""
        words = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        ).input_ids
        most, end = self.config.defaults["max_tokens"] - 1, self.tokenizer.eos_token_id
        rows = [torch.tensor([*row[:most], end]) for row in words]
        token_ids = torch.nn.utils.rnn.pad_sequence(
            rows, batch_first=True, padding_value=self.tokenizer.pad_token_id
        )
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(token_ids.shape[1]) < lengths[:, None]).to(self.text_encoder.device)
        token_ids = token_ids.to(self.text_encoder.device)
        states = self.text_encoder(token_ids, attention_mask=mask.long()).last_hidden_state
        return states.to(self.unet.dtype), mask

    def _to_wav(self, log_mel: torch.Tensor) -> torch.Tensor:
        """log mel [B, n_mel, frames] -> wav [B, frames * hop_size] in [-1, 1]"""
        if self.vocoder is None:
            return GriffinLim(**self.config.mel).to(log_mel.device)(log_mel)
        wav = self.vocoder(log_mel.transpose(1, 2).to(self.vocoder.dtype)).float()
        return wav[:, : log_mel.shape[2] * self.config.mel["hop_size"]]
