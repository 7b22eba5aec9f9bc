"""Small networks that hear which kinds of sound a mel holds, to count what a model gets right.

They learn from real clips alone and never see a generated one. What a decoder or Griffin-Lim does
to any sound (blurred edges, a raised floor, a shift in time or level) is covered by augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
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

    def hear(self, mels: Sequence[np.ndarray | torch.Tensor]) -> list[str]:
        """The kind of each mel [n_mel, frames]; SILENCE for one that stays near the floor."""
        return [
            self.kinds[int(logits.argmax())] if sound else SILENCE
            for logits, sound in self._logits(mels)
        ]

    @torch.no_grad()
    def _logits(
        self, mels: Sequence[np.ndarray | torch.Tensor]
    ) -> Iterator[tuple[torch.Tensor, bool]]:
        """For each mel logits [kinds], and whether anything is heard at all."""
        for start in range(0, len(mels), BATCH_SIZE):
            clips = _prepare(mels[start : start + BATCH_SIZE], self.frames)
            sounds = clips.amax(dim=(1, 2, 3)) > 0.1
            yield from zip(self.net(clips), sounds.tolist(), strict=True)


class Tagger(Classifier):
    """What `train_tagger` learnt."""

    def hear_all(self, mels: Sequence[np.ndarray | torch.Tensor]) -> list[set[str]]:
        """The kinds that are rather heard than not in each mel [n_mel, frames]."""
        return [
            {kind for kind, logit in zip(self.kinds, logits, strict=True) if sound and logit > 0}
            for logits, sound in self._logits(mels)
        ]


def train_classifier(
    mels: Sequence[np.ndarray | torch.Tensor],
    kinds: Sequence[str],
    steps: int = 150,
    seed: int = 0,
) -> Classifier:
    """Learns the kind of each of the mels [n_mel, frames]; on the CPU, repeatable by its seed.

    Raises UserError where there are fewer than two kinds to tell apart.
    """
    names = _names(kinds)
    targets = torch.tensor([names.index(kind) for kind in kinds])
    net, frames = _learnt(mels, len(names), targets, F.cross_entropy, steps, seed, blur=3)
    return Classifier(net, names, frames)


def train_tagger(
    mels: Sequence[np.ndarray | torch.Tensor],
    kinds: Sequence[Set[str]],
    passes: int = 5,
    seed: int = 0,
) -> Tagger:
    """As `train_classifier`, of mels in which several kinds are heard at once.

    Each kind has a probability of its own, learnt with binary cross-entropy.

    Args:
        passes: over the mels.
    """
    names = _names(kind for several in kinds for kind in several)
    targets = torch.tensor([[name in several for name in names] for several in kinds]).float()
    loss = F.binary_cross_entropy_with_logits
    steps = math.ceil(passes * len(mels) / BATCH_SIZE)
    net, frames = _learnt(mels, len(names), targets, loss, steps, seed, blur=9)
    return Tagger(net, names, frames)


def _names(kinds: Iterable[str]) -> tuple[str, ...]:
    names = tuple(sorted(set(kinds)))
    if len(names) < 2:
        raise UserError(f"a classifier needs clips of at least two kinds, found {list(names)}")
    return names


def _learnt(
    mels: Sequence[np.ndarray | torch.Tensor],
    num_kinds: int,
    targets: torch.Tensor,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    steps: int,
    seed: int,
    blur: int,
) -> tuple[RecognitionNet, int]:
    """The network that learnt the targets [clips, ...] of the mels, and its clips' frames.

    blur: bands and frames over which clips are smeared, from not at all to evenly.
    """
    frames = int(np.median([mel.shape[-1] for mel in mels]))
    clips = _prepare(mels, frames)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RecognitionNet(num_kinds)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for step in range(steps):
        draw = generator("cpu", seed, "recognition", step)
        batch = torch.randint(len(clips), (BATCH_SIZE,), generator=draw)
        loss = loss_of(net(_augment(clips[batch], blur, draw)), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval(), frames


def _prepare(mels: Sequence[np.ndarray | torch.Tensor], frames: int) -> torch.Tensor:
    """Mels -> [B, 1, n_mel, frames], 1 at the peak of each clip and 0 where nothing is heard."""
    silence = math.log(MEL_FLOOR)
    clips = [torch.as_tensor(mel, dtype=torch.float32)[:, :frames] for mel in mels]
    clips = [F.pad(clip, (0, frames - clip.shape[-1]), value=silence) for clip in clips]
    batch = torch.stack(clips)[:, None]
    peak = batch.amax(dim=(2, 3), keepdim=True).clamp(min=silence + HEARD_RANGE)
    return ((batch - peak) / HEARD_RANGE + 1).clamp(0, 1)


def _augment(clips: torch.Tensor, blur: int, draw: torch.Generator) -> torch.Tensor:
    """Shifts each clip in time and level, raises its floor, blurs it and adds noise."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(clips), 1, 1, 1, generator=draw)

    frames = clips.shape[-1]
    shift = (uniform(-1 / 8, 1 / 8) * frames).long()
    index = torch.arange(frames) - shift
    inside = (index >= 0) & (index < frames)
    clips = clips.gather(3, index.clamp(0, frames - 1).expand_as(clips)) * inside
    blurred = F.avg_pool2d(clips, blur, stride=1, padding=blur // 2)
    clips = torch.lerp(clips, blurred, uniform(0, 1))
    clips = torch.maximum(clips + uniform(-0.15, 0.15), uniform(-0.2, 0.3))
    clips = clips + uniform(0, 0.08) * torch.randn(clips.shape, generator=draw)
    return clips.clamp(0, 1)
