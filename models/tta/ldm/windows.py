"""Sounds longer than a network was trained on: overlapping windows, joined by a weighted mean."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from models.tta.ldm.sampling import Denoiser

# A window may be so much wider than the training's: 10 s are 79 columns where 78 were trained on.
SLACK = 1.1


def by_windows(function: Callable[[Tensor], Tensor], x: Tensor, columns: int, width: int) -> Tensor:
    """function(x), computed on windows of the last axis that overlap by half or more.

    The windows run one after the other, so that memory does not grow with the length. A value is
    the mean over the windows that hold it; the weight, Hann's window, fades towards their edges,
    where a network knows least of what is around.

    Args:
        function: [..., width * a] -> [..., width * b].
        x: [..., columns * a].
        columns: of the latent that x is or stands for.
        width: columns of a window, as trained. Up to `SLACK` times that, x is one window.

    Returns:
        [..., columns * b]
    """
    if columns <= SLACK * width:
        return function(x)
    a = x.shape[-1] // columns
    count = math.ceil((columns - width) / max(width // 2, 1)) + 1
    starts = [round(place * (columns - width) / (count - 1)) for place in range(count)]
    summed = weights = None
    for start in starts:
        part = function(x[..., start * a : (start + width) * a])
        b = part.shape[-1] // width
        if summed is None:
            summed = part.new_zeros(*part.shape[:-1], columns * b)
            weights, weight = summed.new_zeros(columns * b), hann(width * b, part.device)
        place = slice(start * b, (start + width) * b)
        summed[..., place] += part * weight
        weights[place] += weight
    return summed / weights


def hann(length: int, device: torch.device) -> Tensor:
    """sin^2 at the middle of each of `length` samples, so that none is 0."""
    middles = (torch.arange(length, device=device) + 0.5) / length
    return (math.pi * middles).sin().square()


def windowed(denoise: Denoiser, columns: int, width: int) -> Denoiser:
    """The denoiser of latents with `columns` that denoises windows of `width`.

    MultiDiffusion (Bar-Tal et al. 2023, arXiv:2302.08113, eq. 5) takes a step in each window and
    then the weighted mean. A sampler's step is affine in the prediction, with the same
    coefficients in each window, so this is the step of the predictions' weighted mean.
    """
    return lambda latent, timestep: by_windows(
        lambda window: denoise(window, timestep), latent, columns, width
    )
