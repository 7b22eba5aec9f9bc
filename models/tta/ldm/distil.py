"""Few steps: what the loop in bins/tta/train.py needs to know to make a flow map of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from config.schema import Config
from models.base.task import Loss
from models.tta.ldm.conditions import check_no_flow_map, check_start
from models.tta.ldm.flow_map import LENGTHS, FlowMapObjective, Teacher, beside
from models.tta.ldm.pipeline import Pipeline, text_encoder_class
from models.tta.ldm.text_encoder import TextEncoder, weights_fingerprint
from models.tta.ldm.training import AudioLDMTraining
from models.tta.ldm.unet import UNet
from processors.stream import Share
from utils.checkpoint import load_tensors, load_weights, read_json, read_weights_into
from utils.device import to_device
from utils.errors import UserError
from utils.run_folder import find_weights
from utils.seeds import generator

TEACHER_STEPS = 32  # Euler's, of the ways that validation goes beside
VALIDATED = 64  # clips of valid.json at most: the teacher goes a whole way for each
QUARTERS = 4  # of a way, between which validation jumps: 1, 2 or 4 jumps
JUMPS = [
    (begin, begin - length)
    for length in (4, 2, 1)
    for begin in range(QUARTERS, length - 1, -length)
]


class Distillation(AudioLDMTraining):
    """A flow map of a text-to-audio model: a models/base Task.

    U-Net, VAE and text encoder begin as the teacher's, in `train.init_from`; the U-Net learns.
    """

    kind: type[Pipeline] = Pipeline

    def __init__(
        self, config: Config, accelerator: Accelerator, share: Share, checkpoint: Path | None
    ) -> None:
        every, clips = config.model.flow_map.jump_every, share.micro_batch_size
        if clips % every:
            raise UserError(
                f"model.flow_map.jump_every {every} must divide {clips}, the clips of a micro-batch"
                " of a process; change it or train.batch_size"
            )
        super().__init__(config, accelerator, share, checkpoint)
        self._ways: dict[int, list[Tensor]] = {}

    # ------------------------------------------------------------ what it starts from

    def _find_start(self, checkpoint: Path | None) -> Path:
        return checkpoint or self._find_teacher()

    def _find_teacher(self) -> Path:
        """The teacher's folder: a model along a flow, of the config's shapes."""
        config = self.config
        start = find_weights(config.train.init_from, config.log_dir, config.model_type)
        settings = self.kind.settings_type.read(start)
        if settings.noise_scheduler.prediction_type != "flow_prediction":
            raise UserError(
                f"{start}: predicts {settings.noise_scheduler.prediction_type}, and a flow map is"
                " made of a model along a flow; train one with"
                " model.noise_scheduler.prediction_type=flow_prediction"
            )
        check_no_flow_map(settings, start)
        unet = dataclasses.replace(settings.unet, span_embedding=True)
        check_start(config, dataclasses.replace(settings, unet=unet), start)
        self.guiding = settings.sampling
        return start

    def _find_vae(self, start: Path) -> Path:
        return start / "vae"

    def _make_text_encoder(self, checkpoint: Path | None, start: Path) -> TextEncoder:
        kind = text_encoder_class(self.config.model.audioldm)
        encoder = kind.from_pretrained(
            str(start / "text_encoder"), self.config.model.text_encoder.max_tokens
        )
        return encoder.requires_grad_(False)

    def _load_unet(self, start: Path) -> None:
        """The teacher's weights, and zeros for what tells the end of a jump; or a checkpoint's.

        Raises UserError where the teacher is not the one that the checkpoint had.
        """
        folder = self._find_teacher()
        shape = dataclasses.replace(self.config.model.audioldm, span_embedding=False)
        unet = UNet(shape, self.schedule)
        read_weights_into(unet, folder / self.weights_file)
        self._teacher_unet = unet.requires_grad_(False).eval()
        found = {"folder": str(folder.resolve()), "fingerprint": weights_fingerprint(unet)}
        path = start / self.weights_file
        weights = load_tensors(path)
        if start != folder:
            known = read_json(start / "config.json")["made_with"]["teacher"]
            if known["fingerprint"] != found["fingerprint"]:
                raise UserError(
                    f"{folder}: its weights are not those that this run began with; name these with"
                    " train.init_from, or choose another --exp_name"
                )
        else:
            weights = {**self.unet.state_dict(), **weights}
        self.made_from["teacher"] = found
        load_weights(self.unet, weights, path)

    def _make_objective(self) -> FlowMapObjective:
        flow_map, guiding = self.config.model.flow_map, self.guiding
        scale = flow_map.guidance_scale or guiding.guidance_scale
        with torch.no_grad():
            empty = self.text_encoder.encode([""])
        source_scale = getattr(guiding, "source_guidance", 1.0)
        self.teacher = Teacher(
            self._teacher_unet, empty, scale, source_scale, guiding.guidance_mean
        )
        self.notes.append(f"learns from {self.made_from['teacher']['folder']}, guided by {scale:g}")
        return FlowMapObjective(self.unet, self.schedule, self.teacher, flow_map.jump_every)

    def _to_device(self) -> None:
        self.teacher.to(self.accelerator.device)
        super()._to_device()

    # ------------------------------------------------------------ learning

    def losses(self, batch: dict, step: int, micro: int) -> Iterator[Loss]:
        """The flow map's loss; beside it the error of velocities and of jumps by their number.

        "error_4" is of jumps of which 4 make a whole way.
        """
        random = generator(self.accelerator.device, self.seed, "diffusion", step)
        mine = self.share.slice(micro)
        drawn = [numbers[mine] for numbers in self._draw(random, self.share.batch_size)]
        errors = self._errors(batch, *drawn)
        found, spans = errors.detach(), -drawn[0].diff(dim=1)[:, 0] / self.objective.schedule.steps
        metrics = {"loss": found.mean(), "error_velocity": found[spans == 0].mean()}
        for power in range(LENGTHS):  # not a number, and so left out, where there is none
            close = (spans * 2**power - 1).abs() < 0.1
            metrics[f"error_{2**power}"] = (found * close).sum() / close.sum()
        yield Loss("unet", errors.mean(), metrics, {})

    def _draw(self, random: torch.Generator, clips: int) -> list[Tensor]:
        """As stage 2's, with the timesteps [clips, 2] where a jump begins and ends.

        Jumps take turns in their length, and may be anywhere on the way.
        """
        timesteps, spread, noise = super()._draw(random, clips)
        device, every = timesteps.device, self.config.model.flow_map.jump_every
        number = torch.arange(clips, device=device)
        first = torch.randint(LENGTHS, (1,), generator=random, device=device)
        length = 0.5 ** ((first + number // every) % LENGTHS)
        end = (1 - length) * torch.rand(clips, generator=random, device=device)
        jumps = self.objective.schedule.steps * torch.stack([end + length, end], dim=1)
        return [jumps.where((number % every == 0)[:, None], timesteps[:, None]), spread, noise]

    # ------------------------------------------------------------ looking and listening

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """How far jumps end from the teacher's own way, by the quarters of it they go between.

        "error_4_0" is the mean square in the latent of one jump from noise to the sound, and "loss"
        the mean over `JUMPS`. Beside a guided way of `TEACHER_STEPS` steps, and so beside a truth
        that the flow map has no part in.
        """
        count = min(len(self.valid_records[: self.config.train.valid_clips]), VALIDATED)
        if not count:
            return {}
        errors = torch.zeros(count, len(JUMPS), device=self.accelerator.device)
        size = self.share.micro_batch_size
        for start in range(0, count, size)[self.share.rank :: self.share.world_size]:
            numbers = range(start, min(start + size, count))
            with self.accelerator.autocast():
                errors[numbers.start : numbers.stop] = self._jump_errors(numbers)
        means = self.accelerator.reduce(errors).mean(0).tolist()
        names = [f"error_{begin}_{end}" for begin, end in JUMPS]
        return {"loss": sum(means) / len(means), **dict(zip(names, means, strict=True))}

    def _jump_errors(self, numbers: range) -> Tensor:
        """Of these records of valid.json, [records, jumps]."""
        first, device = len(self.train_records), self.accelerator.device
        batch = self._batch([first + number for number in numbers], [None] * len(numbers))
        text = to_device(batch["text_emb"].float(), device)
        given = (text, to_device(batch["text_mask"], device), self._source(batch))
        if numbers.start not in self._ways:
            self._ways[numbers.start] = self._way(self._draw_for_clips(numbers)[2], *given)
        way, errors = self._ways[numbers.start], []
        for begin, end in JUMPS:
            times = (torch.full((len(text),), x / QUARTERS, device=device) for x in (begin, end))
            begins, ends = (self.objective.schedule.steps * time for time in times)
            inputs, timesteps = beside(way[begin], given[2]), torch.stack([begins, ends], dim=1)
            velocity = self.unet(inputs, timesteps, *given[:2]).float()
            made = self.objective.step(way[begin], velocity, begins, ends)
            errors.append((made - way[end]).square().mean((1, 2, 3)))
        return torch.stack(errors, dim=1)

    def _way(
        self, latent: Tensor, text: Tensor, mask: Tensor, source: Tensor | None
    ) -> list[Tensor]:
        """The teacher's latents at every quarter, the sound first, from this noise [B, z, h, w]."""
        steps, way = self.objective.schedule.steps, [latent]
        for step in range(TEACHER_STEPS):
            times = (1 - (step + n) / TEACHER_STEPS for n in (0, 1))
            begin, end = (torch.full((len(text),), steps * t, device=latent.device) for t in times)
            velocity = self.teacher(latent, begin, text, mask, source)
            latent = self.objective.step(latent, velocity, begin, end)
            if (step + 1) % (TEACHER_STEPS // QUARTERS) == 0:
                way.append(latent)
        return way[::-1]
