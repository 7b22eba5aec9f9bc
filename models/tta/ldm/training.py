"""Stage 2: what the loop in bins/tta/train.py needs to know of the latent diffusion model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from config.schema import Config
from models.base.task import Loss, Sample
from models.tta.autoencoder.saved import load_vae
from models.tta.convert.published import find_model
from models.tta.latent_task import LatentTask
from models.tta.ldm.conditions import (
    check_latent,
    check_start,
    check_text_width,
    embed_sounds,
)
from models.tta.ldm.diffusion import DiffusionObjective
from models.tta.ldm.noise_schedule import NoiseSchedule
from models.tta.ldm.pipeline import Pipeline, PipelineSettings, text_encoder_class
from models.tta.ldm.samples import beside_clips, generated
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.unet import UNet
from models.vocoders.load import load_vocoder
from modules.ema import EMA
from modules.optimizer import make_optimizer
from processors.examples import EMPTY, find_examples
from processors.json_lines import Mapped
from processors.kept_records import captioned, kept_records
from processors.latent import build_latent_cache
from processors.mel import check_mel
from processors.metadata import mel_path
from processors.stream import ClipStream, Share
from processors.text import build_text_cache
from utils.checkpoint import load_tensors, read_json, read_weights_into, save_tensors
from utils.device import compiles, memory_format, to_device
from utils.run_folder import WEIGHTS, find_weights
from utils.seeds import generator

LOOKED_AT = 10_000  # captions at most, for what the text encoder does not know
TEXT_KEYS = ("token_ids", "text_emb", "text_mask")  # of a batch


class AudioLDMTraining(LatentTask):
    """The U-Net on cached latents and a frozen text encoder's cached states: a models/base Task."""

    shown = ("loss",)
    weights_file = WEIGHTS["AudioLDM"]

    def __init__(
        self, config: Config, accelerator: Accelerator, share: Share, checkpoint: Path | None
    ) -> None:
        """`checkpoint` is the folder to go on from; None starts anew."""
        self.from_sounds = config.model.conditioner == "clap"
        super().__init__(config, accelerator, share)
        start = self._find_start(checkpoint)
        if start != checkpoint:
            self.begin_from(start)
        self._take_vae(checkpoint, start)
        self.text_encoder = self._make_text_encoder(checkpoint, start)
        self.trains_text = self._text_learns()
        if not self.from_sounds:
            every = len(self.train_records) // LOOKED_AT + 1
            captions = [record["Caption"] for record in self.train_records[::every]]
            prompts = config.inference.demo_prompts
            self.notes += self.text_encoder.check_captions(captions, prompts)
        self.schedule = NoiseSchedule(config.model.noise_scheduler)
        self.unet = UNet(config.model.audioldm, self.schedule)
        if start:
            self._load_unet(start)
        check_text_width(config.model, self.text_encoder.dim)
        self.objective = self._make_objective()
        self.vocoder = load_vocoder(config.inference.vocoder, config.preprocess.mel)
        self._to_device()
        if checkpoint:
            self._restore(checkpoint)

    def load_records(self, split: str) -> Sequence[dict]:
        form = list if self.from_sounds else captioned
        return kept_records(self.config, split, self.accelerator, form)

    def _find_start(self, checkpoint: Path | None) -> Path | None:
        """The folder that the first weights come from: `checkpoint`; None: they are random."""
        config = self.config
        if checkpoint or not config.train.init_from:
            return checkpoint
        start = find_model(config.train.init_from, config.log_dir)
        check_start(config, PipelineSettings.read(start), start)
        return start

    def _load_unet(self, start: Path) -> None:
        """Loads the U-Net of a checkpoint, or of what the run starts from."""
        read_weights_into(self.unet, start / self.weights_file)

    def _take_vae(self, checkpoint: Path | None, start: Path | None) -> None:
        """A run keeps the VAE that it began with, of which each checkpoint has a copy."""
        config, device = self.config, self.accelerator.device
        folder = checkpoint / "vae" if checkpoint else None
        if folder is None:
            folder = self._find_vae(start)
        self.saved_vae = load_vae(folder)
        check_mel(config.preprocess.mel, self.saved_vae.mel, folder)
        self.vae = self.saved_vae.vae.to(device, memory_format=memory_format(device))
        check_latent(config, self.vae.config, folder)
        taken = {"folder": str(folder.resolve()), "fingerprint": self.saved_vae.fingerprint}
        if checkpoint:
            made_with = read_json(checkpoint / "config.json")["made_with"]
            taken = made_with.get("autoencoder", taken)
        self.made_from["autoencoder"] = taken
        self.notes.append(f"takes the VAE in {taken['folder']}")

    def _find_vae(self, start: Path | None) -> Path:
        """Of a new run that starts from the weights in `start`."""
        path = self.config.model.autoencoder_path
        return find_weights(path, self.config.log_dir, "AutoencoderKL")

    def _make_objective(self) -> DiffusionObjective:
        model, text_encoder = self.config.model, self.text_encoder if self.trains_text else None
        return DiffusionObjective(self.unet, text_encoder, self.schedule, model.snr_gamma)

    def _to_device(self) -> None:
        """Moves the networks there; makes optimizer and average, wraps for several processes."""
        train, device = self.config.train, self.accelerator.device
        self.text_encoder.to(device)
        self.unet.to(device, memory_format=memory_format(device))
        self.unet.enable_gradient_checkpointing(train.gradient_checkpointing)
        if compiles(train.compile, device):
            self.unet.compile(dynamic=False)  # batches have few shapes
        self.objective.to(device)
        self.trainable = {"unet": self.objective}
        self.optimizers = {"unet": make_optimizer(self.objective, train)}
        self.ema = EMA(self.objective, train.ema_decay) if train.ema_decay else None
        self._objective = self.accelerator.prepare_model(self.objective)
        self.wrapped = (self._objective,)

    def _restore(self, checkpoint: Path) -> None:
        """The weights that learn, and the average: what `save_for_inference` wrote is the latter.

        The text encoder still holds what was written for inference.
        """
        if self.ema:
            averages = load_tensors(checkpoint / self.weights_file)
            averages = {f"unet.{name}": tensor for name, tensor in averages.items()}
            if self.trains_text:
                of_text = self.text_encoder.state_dict()
                averages |= {f"text_encoder.{name}": tensor for name, tensor in of_text.items()}
            self.ema.load(averages)
        read_weights_into(self.objective, checkpoint / "learning.safetensors")

    def _make_text_encoder(self, checkpoint: Path | None, start: Path | None) -> TextEncoder:
        text = self.config.model.text_encoder
        if start is None and text.learns:
            captions = Mapped(itemgetter("Caption"), self.train_records)
            return TextEncoder.small(text.small, captions, text.max_tokens)
        # One that learns goes on from where the U-Net's weights come from.
        beside = start if checkpoint or text.learns else None
        source = str(beside / "text_encoder") if beside else text.pretrained
        kind = text_encoder_class(self.config.model.audioldm)
        encoder = kind.from_pretrained(source, text.max_tokens)
        return encoder.requires_grad_(text.learns)

    def _text_learns(self) -> bool:
        """Whether the text encoder learns with the U-Net."""
        return self.config.model.trains_text

    # ------------------------------------------------------------ data

    def prepare_data(self, cache: Path) -> None:
        """Builds or finds the caches of latents and of captions, for both splits."""
        config, encoder = self.config, self.text_encoder
        records = self.train_records, self.valid_records
        self.examples = find_examples(cache, *records, self.accelerator)
        self.latents = build_latent_cache(
            cache,
            self.examples.clips,
            partial(mel_path, config),
            config.preprocess.segment_frames,
            self.vae,
            self.saved_vae.fingerprint,
            self.accelerator,
        )
        self.stream = ClipStream(len(self.train_records), self.seed)
        self.texts = self.sounds = None
        if self.from_sounds:
            clips, windows = self.examples.clips, self.latents.windows
            self.sounds = embed_sounds(config, clips, windows, cache, self.accelerator)
            with torch.no_grad():
                self.empty_text = encoder.encode([""])[0][0].cpu()  # [1, D]
        elif not self.trains_text:
            self.texts = build_text_cache(
                cache, self.examples.captions, encoder, encoder.fingerprint(), self.accelerator
            )

    def batches(self, step: int) -> Iterator[dict]:
        """Micro-batches from `step` on.

        {"posterior": [B, 2, z, h, w], "text_emb": [B, L, D], or "token_ids": [B, L] where the text
        encoder learns, "text_mask": [B, L], "uid": names}
        """
        for positions in self.share.from_step(step):
            numbers = [self.stream.clip(position) for position in positions]
            batch = self._batch(numbers, [self.stream.random(position) for position in positions])
            yield {**batch, "uid": [self.train_records[number]["Uid"] for number in numbers]}

    def _batch(self, numbers: Sequence[int], randoms: Sequence[np.random.Generator | None]) -> dict:
        """These of the records (valid.json's come after train.json's), each with random numbers.

        None: the first window of the clip, with its caption. "windows" are rows of `latents`.
        """
        dropout, windows, said = self.config.model.caption_dropout, [], []
        for number, random in zip(numbers, randoms, strict=True):
            windows.append(self.latents.window(self.examples.clip[number], random))
            said.append(random is None or random.random() >= dropout)
        batch = {"posterior": self.latents.posteriors(windows), "windows": windows}
        if self.sounds is not None:
            heard = self.sounds.take(np.asarray(windows, dtype=np.int64))[:, None].float()
            kept = torch.tensor(said, device=heard.device)[:, None, None]
            text_emb = heard.where(kept, self.empty_text.to(heard))
            mask = torch.ones(text_emb.shape[:2], dtype=torch.bool, device=heard.device)
            return {**batch, "text_emb": text_emb, "text_mask": mask}
        captions = np.where(said, self.examples.caption[numbers], EMPTY)
        if self.texts:
            text_emb, mask = self.texts.batch(captions)
            return {**batch, "text_emb": text_emb, "text_mask": mask}
        texts = [self.examples.captions[number] for number in captions]
        token_ids, mask = self.text_encoder.tokenize(texts)
        return {**batch, "token_ids": token_ids, "text_mask": mask}

    # ------------------------------------------------------------ learning

    def losses(self, batch: dict, step: int, micro: int) -> Iterator[Loss]:
        """The U-Net's loss, with the text encoder's where that learns."""
        random = generator(self.accelerator.device, self.seed, "diffusion", step)
        mine = self.share.slice(micro)
        drawn = [numbers[mine] for numbers in self._draw(random, self.share.batch_size)]
        loss = self._errors(batch, *drawn).mean()
        yield Loss("unet", loss, {"loss": loss.detach()}, {})

    def _draw(self, random: torch.Generator, clips: int) -> list[Tensor]:
        """Random numbers for `clips` clips: timesteps, the posterior's spread, the noise.

        The timesteps of a batch are shares of all at equal distances from a random start: the loss
        then varies less (Kingma et al. 2021, arXiv:2107.00630, low-discrepancy sampler).
        """
        shape, device = (clips, *self.latent_shape), self.accelerator.device
        first = torch.rand(1, generator=random, device=device)
        places = (first + torch.arange(clips, device=device) / clips) % 1
        timesteps = self.schedule.timesteps(places, **vars(self.config.model.flow_times))
        spread, noise = (torch.randn(shape, generator=random, device=device) for _ in range(2))
        return [timesteps, spread, noise]

    def _errors(self, batch: dict, timesteps: Tensor, spread: Tensor, noise: Tensor) -> Tensor:
        """The loss of every clip of the batch, with these random numbers."""
        device = self.accelerator.device
        posterior = to_device(batch["posterior"], device).float()
        latent = self.vae.scale(posterior[:, 0] + posterior[:, 1] * spread)
        latent = latent.contiguous(memory_format=memory_format(device))
        text = batch["token_ids"] if self.trains_text else batch["text_emb"].float()
        text, mask = to_device(text, device), to_device(batch["text_mask"], device)
        return self._objective(latent, noise, timesteps, text, mask, self._source(batch))

    def _source(self, batch: dict) -> Tensor | None:
        """What the U-Net reads besides: of an editor, latents [B, z, h, w]."""
        return None

    # ------------------------------------------------------------ looking and listening

    def validate(self) -> dict[str, float]:
        """Mean loss over valid.json, with the same noise and timesteps at every call.

        "loss_other_text" is that with captions of other clips: the more it lies above "loss", the
        more the network hears of what a text says.
        """
        errors = self._valid_errors().cpu()
        if not len(errors):
            return {}
        found = {"loss": errors.mean().item(), **self._of_parts(errors)}
        if len(errors) > 1:
            found["loss_other_text"] = self._valid_errors(len(errors) // 2).mean().item()
        return found

    def _of_parts(self, errors: Tensor) -> dict[str, float]:
        """Means over parts of valid.json, of all its errors [records]."""
        return {}

    @torch.no_grad()
    def _valid_errors(self, ahead: int = 0) -> Tensor:
        """The loss of each record of valid.json, [records], with the text of that `ahead` of it."""
        count = len(self.valid_records[: self.config.train.valid_clips])
        errors = torch.zeros(count, device=self.accelerator.device)
        size, first_valid = self.share.micro_batch_size, len(self.train_records)
        for start in range(0, count, size)[self.share.rank :: self.share.world_size]:
            numbers = range(start, min(start + size, count))
            batch = self._batch([first_valid + n for n in numbers], [None] * len(numbers))
            if ahead:
                others = [first_valid + (n + ahead) % count for n in numbers]
                other = self._batch(others, [None] * len(numbers))
                batch |= {key: other[key] for key in TEXT_KEYS if key in other}
            errors[numbers.start : numbers.stop] = self._errors(
                batch, *self._draw_for_clips(numbers)
            )
        return self.accelerator.reduce(errors)

    def _draw_for_clips(self, numbers: range) -> list[Tensor]:
        """Each clip's own random numbers, whatever it is batched with."""
        device = self.accelerator.device
        drawn = [self._draw(generator(device, self.seed, "validation", n), 1) for n in numbers]
        return [torch.cat(tensors) for tensors in zip(*drawn, strict=True)]

    @torch.no_grad()
    def samples(self) -> list[Sample]:
        """A sound for each of the config's demo prompts, and what train.evaluation hears."""
        config, how = self.config, (self.pipeline(), self.vocoder, self.seed)
        found = generated(config.inference.demo_prompts, config.inference.demo_prompts, *how)
        if config.train.evaluation:
            found += beside_clips(config, self.valid_records, *how)
        return found

    def pipeline(self) -> Pipeline:
        """Text to mel with the weights as they are."""
        settings = PipelineSettings.of(self.config)
        return Pipeline(settings, self.unet, self.vae, self.text_encoder, self.accelerator.autocast)

    # ------------------------------------------------------------ files

    def save_for_inference(self, folder: Path) -> None:
        """All that inference needs."""
        self.pipeline().write(folder)

    def save_training(self, folder: Path) -> None:
        """The weights that learn; those that `save_for_inference` writes are their average."""
        save_tensors(folder / "learning.safetensors", self.objective.state_dict())
