"""The keys of `model.noise_scheduler`, and which samplers can go by what they say."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from config.typed_json import fixed, typed

Beta = Annotated[float, Field(gt=0, lt=1)]
SamplerName = Literal["ddim", "dpm++", "euler", "pndm", "unipc"]
SAMPLER_NAMES = get_args(SamplerName)
DIFFUSION_SAMPLERS: tuple[SamplerName, ...] = ("ddim", "dpm++", "pndm", "unipc")
FLOW_SAMPLERS: tuple[SamplerName, ...] = ("dpm++", "euler", "unipc")


def fault_of_steps(sampler: str, num_steps: int, timesteps: int) -> str | None:
    """The rule that so many steps of a sampler break on a schedule of `timesteps`, or None."""
    if num_steps > timesteps:
        return f"must be at most {timesteps}, as trained"
    # diffusers' steps of pndm are whole timesteps: rounded off often enough, they leave noise.
    if sampler == "pndm" and num_steps > timesteps // 10 and timesteps % num_steps:
        return (
            f"must be at most {timesteps // 10}, or divide {timesteps}, where the sampler is pndm"
        )
    return None


@typed
class NoiseSchedulerConfig:
    """The keys of diffusers' schedulers, under their names there."""

    num_train_timesteps: Annotated[int, Field(ge=2)]
    beta_start: Beta
    beta_end: Beta
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    prediction_type: Literal["epsilon", "v_prediction", "flow_prediction"]
    clip_sample: Annotated[bool, fixed(False, "a latent has no bounds to be clipped to")]
    steps_offset: Annotated[int, fixed(1, "samplers lay their steps to the schedule's last")]
    set_alpha_to_one: bool
    skip_prk_steps: Annotated[bool, fixed(True, "pndm starts without Runge-Kutta steps")]
    timestep_spacing: Literal["trailing", "leading"] = "trailing"

    def __post_init__(self) -> None:
        if self.beta_start > self.beta_end:
            raise ValueError(
                f"beta_start {self.beta_start} must not exceed beta_end {self.beta_end}"
            )

    @property
    def samplers(self) -> tuple[SamplerName, ...]:
        """Those that can go by what such a network predicts."""
        return FLOW_SAMPLERS if self.prediction_type == "flow_prediction" else DIFFUSION_SAMPLERS

    def fault_of(self, sampler: str, num_steps: int) -> str | None:
        """The rule that so many steps of a sampler break, beginning with the setting; or None."""
        if sampler not in self.samplers:
            return (
                f"sampler {sampler!r} must be one of {', '.join(self.samplers)} where"
                f" prediction_type is {self.prediction_type}"
            )
        fault = fault_of_steps(sampler, num_steps, self.num_train_timesteps)
        return fault and f"num_steps {num_steps} {fault}"
