"""Texts to sounds: settings, samplers, and what a sampler is given (a start, a denoiser, times)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from config.schedule_schema import NoiseSchedulerConfig, SamplerName
from config.schema import MelConfig
from config.typed_json import Count, NotNegative, Positive, Text, typed
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from processors.mel import MEL_FLOOR
from utils.audio import Recording
from utils.device import graphed, memory_format

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

    from models.tta.ldm.known import Known
    from models.tta.ldm.pipeline import Pipeline
    from models.tta.ldm.source import Source, SourceMel
    from models.vocoders.load import Vocoder

NOT_FINITE = "what came of it is not finite: ask for less guidance"
ROUNDING = 1e-6  # seconds, by which sums of times may differ
QUIET = -50.0  # dB of full scale: below it, a sound is hardly heard
# latent [B, z, h, w] and timestep [], or [2] where a step begins and ends -> prediction
Denoiser = Callable[[Tensor, Tensor], Tensor]
OnStep = Callable[[int, int], None]  # is told the steps done and their number; may raise, to stop

# By name: diffusers' class, and what is set besides the noise schedule. All are deterministic.
# Those of higher order go by the noise levels of Karras et al. (2022, arXiv:2206.00364, eq. 5):
# with timesteps at equal distances, their last step takes half of the fine detail away. The others
# start at the noisiest timestep (Lin et al. 2024, arXiv:2305.08891, table 2). DDIM is the solver of
# first order (Lu et al. 2022, arXiv:2206.00927, section 4.1); of the two that diffusers has, this
# one is right where the steps do not divide the schedule, too.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "ddim": ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing", "solver_order": 1}),
    "pndm": ("PNDMScheduler", {"timestep_spacing": "trailing"}),
    "unipc": ("UniPCMultistepScheduler", {"use_karras_sigmas": True}),
}

# Likewise along the straight paths of rectified flow, by steps of equal length.
FLOW_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {"use_flow_sigmas": True}),
}

# Those of diffusion by timestep_spacing "leading", as they were in AudioLDM and Amphion.
LEADING = {"ddim": "DDIMScheduler", "pndm": "PNDMScheduler"}


@typed
class SamplingSettings:
    """All that makes a sound of a text and of the weights; a receipt holds it with both.

    With `audio` a sound is changed instead of made: from the noise level that `strength` says, all
    of it or what `region`, `extend` and `task` leave open.

    Raises:
        ConfigError: a value is out of its range; the message begins with its name.
    """

    sampler: SamplerName
    num_steps: Count
    guidance_scale: Annotated[float, Field(ge=1)]  # 1 is no guidance
    duration: Annotated[float, Field(gt=0, le=600)]  # seconds
    negative_text: Text = ""  # what guidance leads away from
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0  # of the first sound; the next has one more
    audio: Text | None = None  # file of the sound to be changed; `duration` is then its own
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0  # 0 leaves the sound, 1 is noise alone
    region: tuple[
        tuple[NotNegative, NotNegative], ...
    ] = ()  # (begin, end) in seconds, made anew or edited
    extend: NotNegative = 0.0  # seconds at the end of `duration` that follow the sound
    task: Literal["super_resolution"] | None = None  # what is above `cutoff` is made anew
    cutoff: Positive | None = None  # Hz
    resample: Count = 1  # times that a part of the way is gone, so that what is made fits
    guidance_mean: Annotated[float, Field(ge=0, le=1)] = 1.0  # see `with_mean`

    def __post_init__(self) -> None:
        partial = self.region or self.extend or self.task
        if self.audio is None and (partial or self.strength < 1):
            raise ValueError("audio is missing: region, extend, task and strength change a sound")
        if self.task and (self.region or self.extend):
            raise ValueError(f"task {self.task} changes all of a sound; no region, no extend")
        if bool(self.task) != bool(self.cutoff):
            raise ValueError("cutoff in Hz and task super_resolution go together")
        if self.resample > 1 and not partial:
            raise ValueError(f"resample {self.resample} needs a region, extend or a task")
        for begin, end in self.region:
            if not begin < end <= self.duration - self.extend + ROUNDING:
                raise ValueError(
                    f"region {begin:g} {end:g} must be two times within the sound's"
                    f" {self.duration - self.extend:g} seconds, the first one earlier"
                )

    @property
    def needs_unedited(self) -> bool:
        """Whether what is made is held beside what the model makes of the sound unedited."""
        return False

    @property
    def regions(self) -> tuple[tuple[float, float], ...]:
        """All that is made anew or edited in time, what follows the sound included."""
        if not self.extend:
            return self.region
        return (*self.region, (self.duration - self.extend, self.duration))

    def frames(self, mel: MelConfig) -> int:
        """Frames of a mel that lasts `duration`, in which rounding adds none."""
        return max(1, math.ceil(self.duration * mel.frames_per_second - 1e-6))

    def whole_frames(self, mel: MelConfig, factor: int) -> int:
        """`frames`, and as many more as make whole columns of `factor` frames."""
        return math.ceil(self.frames(mel) / factor) * factor


@dataclass(frozen=True)
class Sound:
    """wav [T] in [-1, 1], and the mel [n_mel, frames] that it was made of.

    Of a sound that was changed in part, both are of the whole result. Of one that is not `finite`,
    what was made is silence.
    """

    text: str
    seed: int
    mel: np.ndarray
    wav: np.ndarray
    before: np.ndarray | None = None  # mel [n_mel, frames] of the sound that was changed
    recording: Recording | None = None  # the result at that sound's rate, channels and bits
    kept: float | None = None  # share of its samples that are as they were, bit for bit
    finite: bool = True  # what weights that diverged or too much guidance make is not

    @property
    def level(self) -> float:
        """Root mean square in dB of full scale; silence is -120."""
        return 20 * math.log10(max(float(np.sqrt(np.square(self.wav).mean())), 1e-6))

    @property
    def is_quiet(self) -> bool:
        return self.level < QUIET

    @property
    def fault(self) -> str | None:
        """What is wrong with it, if anything."""
        if not self.finite:
            return NOT_FINITE
        return f"{self.level:.0f} dB, hardly to be heard" if self.is_quiet else None


def generate(
    pipeline: Pipeline,
    vocoder: Vocoder,
    texts: Sequence[str],
    settings: SamplingSettings,
    batch_size: int = 8,
    source: Source | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Sound]:
    """A sound for each text, in their order; that of text k has the seed `settings.seed` + k.

    source: what `settings.audio` names, read; each sound is then a changed one.
    on_step: called after each step of the sampler, for each batch anew.

    Of what is not finite silence is made, and the others of its batch stay.
    """
    given = source and source.for_sampling(settings, pipeline.settings.mel, pipeline.vae.config)
    return _generate(pipeline, vocoder, texts, settings, batch_size, source, given, on_step)


def _generate(
    pipeline: Pipeline,
    vocoder: Vocoder,
    texts: Sequence[str],
    settings: SamplingSettings,
    batch_size: int,
    source: Source | None,
    given: SourceMel | None,
    on_step: OnStep | None,
) -> Iterator[Sound]:
    mel_config, unedited = pipeline.settings.mel, None
    if settings.needs_unedited:
        unedited = pipeline.round_trip(given.mel)[0, 0].cpu().numpy()
    for first in range(0, len(texts), batch_size):
        batch = texts[first : first + batch_size]
        seeds = [settings.seed + first + place for place in range(len(batch))]
        mels = pipeline(batch, seeds, settings, given, on_step)
        wavs = vocoder(mels)[:, : round(settings.duration * mel_config.sample_rate)]
        mels, wavs = mels.cpu(), wavs.cpu()
        finite = mels.isfinite().all(2).all(1) & wavs.isfinite().all(1)
        mels = mels.where(finite[:, None, None], math.log(MEL_FLOOR))
        wavs = wavs.where(finite[:, None], 0.0)
        for text, seed, mel, wav, well in zip(
            batch, seeds, mels, wavs, finite.tolist(), strict=True
        ):
            sound = Sound(text, seed, mel.numpy(), wav.numpy(), finite=well)
            yield source.finished(sound, settings, mel_config, unedited) if source else sound


def starting_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device) -> Tensor:
    """[B, *shape] on `device`; drawn on the CPU, where a seed means the same on every machine."""
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(device, memory_format=memory_format(device))


def with_mean(guided: Tensor, prompted: Tensor, share: float) -> Tensor:
    """A guided prediction [B, z, h, w], where `share` of what guidance does to means is left.

    What it adds to the prompted prediction shifts the mean of each of a sound's channels, too: what
    is louder than the average sound gets louder still, and what is quieter is hardly heard. With a
    share of 1, guidance is as published.
    """
    if share == 1:
        return guided
    return guided - (1 - share) * (guided - prompted).mean((2, 3), keepdim=True)


def guided(
    unet: UNet,
    text_encoder: TextEncoder,
    texts: Sequence[str],
    negative: str,
    scale: float,
    mean_share: float = 1.0,
) -> Denoiser:
    """The U-Net's prediction for these texts, under guidance where `scale` is not 1.

    Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, eq. 6) runs both texts in one
    batch; without it the negative text is not needed.
    """
    both = scale != 1
    text = text_encoder.encode_guided(texts, negative) if both else text_encoder.encode(texts)
    context = unet.prepare_text(*text)
    network = None

    def denoise(latent: Tensor, timestep: Tensor) -> Tensor:
        nonlocal network
        inputs = torch.cat([latent, latent]) if both else latent
        timesteps = timestep.to(latent.device).expand(len(inputs), *timestep.shape)
        if network is None:
            network = graphed(lambda x, t: unet(x, t, context=context), inputs, timesteps)
        prediction = network(inputs, timesteps).float()
        if not both:
            return prediction
        prompted, empty = prediction.chunk(2)
        return with_mean(empty + scale * (prompted - empty), prompted, mean_share)

    return denoise


def watched(denoise: Denoiser, on_step: OnStep, steps: int) -> Denoiser:
    """The denoiser, which tells how many of `steps` predictions it has made."""
    done = itertools.count(1)

    def denoise_and_tell(latent: Tensor, timestep: Tensor) -> Tensor:
        prediction = denoise(latent, timestep)
        on_step(min(next(done), steps), steps)
        return prediction

    return denoise_and_tell


def sample(
    denoise: Denoiser,
    scheduler: SchedulerMixin,
    noise: Tensor,
    start: Tensor | None = None,
    known: Known | None = None,
) -> Tensor:
    """The latent that the sampler's steps make of noise.

    Args:
        noise: [B, z, h, w] from N(0, 1).
        start: the latent at the scheduler's first noise level; None: noise alone.
        known: what stays of a latent. Before each step it is put in, at that step's noise level
            and with `noise` (as Avrahami et al. 2022, arXiv:2206.02779, algorithm 1).

    Returns:
        [B, z, h, w], of which what is known is as the last step left it
    """
    latent = noise * scheduler.init_noise_sigma if start is None else start
    for timestep in scheduler.timesteps:
        if known is not None:
            noisy = scheduler.add_noise(known.latent, noise, timestep[None])
            latent = known.kept(latent, noisy)
        inputs = scheduler.scale_model_input(latent, timestep)
        times = scheduler.span(timestep) if hasattr(scheduler, "span") else timestep
        latent = scheduler.step(denoise(inputs, times), timestep, latent).prev_sample
    return latent


def make_scheduler(name: str, schedule: NoiseSchedulerConfig, num_steps: int) -> SchedulerMixin:
    """The sampler over the training's noise schedule, at the first of `num_steps` steps."""
    import diffusers  # takes seconds

    from models.tta.ldm.flow import FlowEuler

    flows = schedule.prediction_type == "flow_prediction"
    class_name, besides = (FLOW_SAMPLERS if flows else SAMPLERS)[name]
    leading = schedule.timestep_spacing == "leading" and name in LEADING
    if leading:
        class_name, besides = LEADING[name], {"timestep_spacing": "leading"}
    settings = {**dataclasses.asdict(schedule), "timestep_spacing": "linspace", **besides}
    if name == "ddim" and not leading:
        settings["final_sigmas_type"] = "zero" if schedule.set_alpha_to_one else "sigma_min"
    if name == "euler":
        scheduler = FlowEuler(schedule.num_train_timesteps)
    else:
        scheduler = getattr(diffusers, class_name).from_config(settings)
    scheduler.set_timesteps(num_steps)
    # Two neighbours among many steps can round to one timestep, which then does not tell the step.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler
