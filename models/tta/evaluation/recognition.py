"""A small classifier that hears which kind of sound a mel is, to count what generation gets right.

It learns from real clips alone and never sees a generated one. What a decoder or Griffin-Lim does
to any sound (blurred edges, a raised floor, a shift in time or level) is covered by augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from processors.mel import MEL_FLOOR
from utils.errors import UserError
from utils.seeds import generator

CHANNELS = (8, 16, 32, 64)
POOLED_BANDS = 5  # parts of the frequency axis that are kept apart
# Nepers below a clip's peak that are heard (61 dB); a clip is silent where its peak is lower yet.
HEARD_RANGE = 7.0
SILENCE = "silence"
BATCH_SIZE = 32


class RecognitionNet(nn.Module):
    """heard [B, 1, n_mel, frames] -> logits [B, kinds], for any number of frames."""

    def __init__(self, num_kinds: int) -> None:
        super().__init__()
        layers = []
        for before, after in zip((1, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1)]
            layers += [nn.GroupNorm(4, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(2 * POOLED_BANDS * CHANNELS[-1], num_kinds)

    def forward(self, heard: torch.Tensor) -> torch.Tensor:
        hidden = self.layers(heard)
        mean = F.adaptive_avg_pool2d(hidden, (POOLED_BANDS, 1))
        peak = F.adaptive_max_pool2d(hidden, (POOLED_BANDS, 1))
        return self.out(torch.cat([mean, peak], dim=1).flatten(1))


@dataclass(frozen=True)
class Classifier:
    """What `train_classifier` learnt."""

    net: RecognitionNet
    kinds: tuple[str, ...]
    frames: int  # clips are cut, or padded with silence, to this length

    @torch.no_grad()
    def hear(self, mels: Sequence[np.ndarray | torch.Tensor]) -> list[str]:
        """The kind of each mel [n_mel, frames]; SILENCE for one that stays near the floor."""
        heard: list[str] = []
        for start in range(0, len(mels), BATCH_SIZE):
            clips = _prepare(mels[start : start + BATCH_SIZE], self.frames)
            best = self.net(clips).argmax(dim=1).tolist()
            sounds = clips.amax(dim=(1, 2, 3)) > 0.1
            heard += [
                self.kinds[i] if sound else SILENCE for i, sound in zip(best, sounds, strict=True)
            ]
        return heard


def train_classifier(
    mels: Sequence[np.ndarray | torch.Tensor],
    kinds: Sequence[str],
    steps: int = 150,
    seed: int = 0,
) -> Classifier:
    """Learns the kind of each of the mels [n_mel, frames]; on the CPU, repeatable by its seed.

    Raises UserError where there are fewer than two kinds to tell apart.
    """
    names = tuple(sorted(set(kinds)))
    if len(names) < 2:
        raise UserError(f"a classifier needs clips of at least two kinds, found {list(names)}")
    frames = int(np.median([mel.shape[-1] for mel in mels]))
    clips = _prepare(mels, frames)
    targets = torch.tensor([names.index(kind) for kind in kinds])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RecognitionNet(len(names))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for step in range(steps):
        draw = generator("cpu", seed, "recognition", step)
        batch = torch.randint(len(clips), (BATCH_SIZE,), generator=draw)
        loss = F.cross_entropy(net(_augment(clips[batch], draw)), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Classifier(net.eval(), names, frames)


def _prepare(mels: Sequence[np.ndarray | torch.Tensor], frames: int) -> torch.Tensor:
    """Mels -> [B, 1, n_mel, frames], 1 at the peak of each clip and 0 where nothing is heard."""
    silence = math.log(MEL_FLOOR)
    clips = [torch.as_tensor(mel, dtype=torch.float32)[:, :frames] for mel in mels]
    clips = [F.pad(clip, (0, frames - clip.shape[-1]), value=silence) for clip in clips]
    batch = torch.stack(clips)[:, None]
    peak = batch.amax(dim=(2, 3), keepdim=True).clamp(min=silence + HEARD_RANGE)
    return ((batch - peak) / HEARD_RANGE + 1).clamp(0, 1)


def _augment(clips: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Shifts each clip in time and level, raises its floor, blurs it and adds noise."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(clips), 1, 1, 1, generator=draw)

    frames = clips.shape[-1]
    shift = (uniform(-1 / 8, 1 / 8) * frames).long()
    index = torch.arange(frames) - shift
    inside = (index >= 0) & (index < frames)
    clips = clips.gather(3, index.clamp(0, frames - 1).expand_as(clips)) * inside
    blurred = F.avg_pool2d(clips, 3, stride=1, padding=1)
    clips = torch.lerp(clips, blurred, uniform(0, 1))
    clips = torch.maximum(clips + uniform(-0.15, 0.15), uniform(-0.2, 0.3))
    clips = clips + uniform(0, 0.08) * torch.randn(clips.shape, generator=draw)
    return clips.clamp(0, 1)
