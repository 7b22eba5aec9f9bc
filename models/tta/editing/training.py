"""What the loop in bins/tta/train.py needs to know of AUDIT (Wang et al. 2023, arXiv:2304.00830).

Stage 2 with a second latent: the U-Net reads that of the sound to edit behind the noisy one, and
the text is an instruction. Captioned sounds stay in the mix, with zeros for the sound to edit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.base.task import Sample
from models.tta.editing.pipeline import Editor, EditorSettings, with_source_channels
from models.tta.editing.vocabulary import learn_words
from models.tta.ldm.conditions import check_start
from models.tta.ldm.pipeline import PipelineSettings
from models.tta.ldm.samples import heard
from models.tta.ldm.source import SourceMel
from models.tta.ldm.text_encoder import TextEncoder
from models.tta.ldm.training import AudioLDMTraining
from processors.dataset import read_batch
from processors.edits import TASKS, edit_examples, examples_in_turns, sounds_of
from processors.examples import NO_SOURCE
from processors.kept_records import kept_records
from processors.metadata import mel_path
from utils.checkpoint import load_tensors, load_weights, read_json
from utils.commands import command
from utils.device import memory_format, to_device
from utils.errors import UserError
from utils.hub import model_folder
from utils.run_folder import WEIGHTS, find_weights, weights_folder


class AUDITTraining(AudioLDMTraining):
    """The editor: a models/base Task."""

    weights_file = WEIGHTS["AUDIT"]

    def load_records(self, split: str) -> Sequence[dict]:
        """Edits and captioned sounds, see `edit_examples`.

        In "valid", tasks take turns, so that those of `train.valid_clips` are of every task. Raises
        UserError where "train" has no edit.
        """
        form = examples_in_turns if split == "valid" else edit_examples
        records = kept_records(self.config, split, self.accelerator, form, sounds_of)
        if split == "train" and all(record["Source"] is None for record in records):
            raise UserError(
                f"{', '.join(self.config.dataset)}: no edits in train.json; to make some, run:"
                f" {command('Edits')}, and name their data set (dataset=...)"
            )
        return records

    # ------------------------------------------------------------ what it starts from

    def _find_start(self, checkpoint: Path | None) -> Path:
        """A text-to-audio model, or an editor, whose U-Net and noise schedule are the config's."""
        if checkpoint:
            return checkpoint
        config, path = self.config, self.config.train.init_from
        edits = path is not None and weights_folder(model_folder(path), "AUDIT") is not None
        start = find_weights(path, config.log_dir, "AUDIT" if edits else "AudioLDM")
        found = (EditorSettings if edits else PipelineSettings).read(start)
        # Where there is no source yet, its channels are added, and what belongs to them.
        own = {name: getattr(config.model.audioldm, name) for name in ("in_channels", "input_skip")}
        unet = dataclasses.replace(found.unet, **({} if edits else own))
        check_start(config, dataclasses.replace(found, unet=unet), start)
        if found.noise_scheduler != config.model.noise_scheduler:
            raise UserError(
                f"{start}: its noise schedule is {found.noise_scheduler}, and model.noise_scheduler"
                f" is {config.model.noise_scheduler}; the network knows its own alone"
            )
        return start

    def _take_vae(self, checkpoint: Path | None, start: Path) -> None:
        super()._take_vae(checkpoint, start)
        began = str(start.resolve())
        if checkpoint:
            began = read_json(checkpoint / "config.json")["made_with"].get("init_from", began)
        self.made_from["init_from"] = began

    def _find_vae(self, start: Path) -> Path:
        """The one whose latents the weights know, unless the config names another."""
        named = self.config.model.autoencoder_path
        return super()._find_vae(start) if named else start / "vae"

    def _make_text_encoder(self, checkpoint: Path | None, start: Path) -> TextEncoder:
        """The one that comes with the weights; one that learns gets the instructions' words."""
        settings = self.config.model.text_encoder
        encoder = TextEncoder.from_pretrained(str(start / "text_encoder"), settings.max_tokens)
        if settings.learns and not checkpoint:
            texts = [record["Caption"] for record in self.train_records]
            if words := learn_words(encoder, texts, settings.small.vocab_size):
                self.notes.append(f"the text encoder gets new words: {', '.join(sorted(words))}")
        return encoder.requires_grad_(settings.learns)

    def _load_unet(self, start: Path) -> None:
        if (start / self.weights_file).is_file():
            super()._load_unet(start)
            return
        path = start / WEIGHTS["AudioLDM"]
        weights = with_source_channels(load_tensors(path), self.unet)
        load_weights(self.unet, weights, path)

    # ------------------------------------------------------------ data

    def prepare_data(self, cache: Path) -> None:
        """As stage 2's, with the sounds to edit.

        Raises UserError where an edit's two sounds are not equally long.
        """
        super().prepare_data(cache)
        windows = np.diff(self.latents.first)
        made, source = self.examples.clip, self.examples.source
        unequal = (source != NO_SOURCE) & (windows[source] != windows[made])
        for number in np.flatnonzero(unequal)[:1].tolist():
            place = number - len(self.train_records)
            record = self.train_records[number] if place < 0 else self.valid_records[place]
            raise UserError(
                f"{record['Dataset']}: {record['Source']} and {record['Uid']}, input and output"
                " of an edit, must be equally long"
            )

    def _batch(self, numbers: Sequence[int], randoms: Sequence[np.random.Generator | None]) -> dict:
        """As stage 2's, with "source" [B, z, h, w], latents that are not scaled, of the windows to
        edit, and "edits" [B], False where the network gets to see none.

        It is the posterior's mean, as in InstructPix2Pix. So is the output of an edit: what stays
        as it was is then the same in both, which a draw would hide.
        """
        batch = super()._batch(numbers, randoms)
        first, rows, edits = self.latents.first, [], []
        for number, random, row in zip(numbers, randoms, batch["windows"], strict=True):
            made, edited = self.examples.clip[number], self.examples.source[number]
            keep = bool(edited != NO_SOURCE)
            if random is not None and random.random() < self.config.model.source_dropout:
                keep = False
            rows.append(row if edited == NO_SOURCE else row - first[made] + first[edited])
            edits.append(keep)
        source, edits = self.latents.posteriors(rows)[:, 0], torch.tensor(edits)
        drawn = batch["posterior"].clone()
        drawn[edits.to(drawn.device), 1] = 0
        return {**batch, "posterior": drawn, "source": source, "edits": edits}

    def _source(self, batch: dict) -> Tensor:
        device = self.accelerator.device
        latent = self.vae.scale(to_device(batch["source"], device).float())
        edits = to_device(batch["edits"], device)[:, None, None, None]
        return (latent * edits).contiguous(memory_format=memory_format(device))

    # ------------------------------------------------------------ looking and listening

    def _of_parts(self, errors: Tensor) -> dict[str, float]:
        """The mean of every task: "loss_add" and so on."""
        tasks = [record["Task"] for record in self.valid_records[: len(errors)]]
        of = {task: errors[[task == other for other in tasks]] for task in sorted(set(tasks))}
        return {f"loss_{task}": of_task.mean().item() for task, of_task in of.items()}

    @torch.no_grad()
    def samples(self) -> list[Sample]:
        """The first edit of every task in valid.json (before, after and as it should be), and a
        sound for each of the config's demo prompts."""
        edits = list({r["Task"]: r for r in reversed(self.valid_records) if r["Source"]}.values())
        prompts, editor = self.config.inference.demo_prompts, self.pipeline()
        mels = list(editor(prompts, [self.seed + n for n in range(len(prompts))]).cpu())
        names = list(prompts)
        for record in edits:
            before, wanted = (self._mel(sound) for sound in (source_of(record), record))
            sampling = dataclasses.replace(editor.settings.sampling, audio=record["Source"])
            source = SourceMel(before[:, None], torch.ones(self.latent_shape[1:]).bool())
            after = editor([record["Caption"]], [self.seed], sampling, source).cpu()
            mels += [*before, *after, *wanted]
            names += [f"{record['Task']}/{place}" for place in ("before", "after", "wanted")]
        return heard(names, torch.stack(mels), self.vocoder)

    def _mel(self, record: dict) -> Tensor:
        """[1, n_mel, segment_frames]"""
        path = mel_path(self.config, record)
        return read_batch([path], self.config.preprocess.segment_frames)[:, 0]

    @cached_property
    def _tasks(self) -> list[str]:
        """Those that train.json has edits of."""
        known = {record["Task"] for record in self.train_records}
        return [task for task in TASKS if task in known]

    def pipeline(self) -> Editor:
        """The editor with the weights as they are."""
        settings = EditorSettings.of(self.config, self._tasks)
        return Editor(settings, self.unet, self.vae, self.text_encoder, self.accelerator.autocast)


def source_of(record: dict) -> dict:
    """The record of the sound that an example edits."""
    return {**record, "Uid": record["Source"]}
