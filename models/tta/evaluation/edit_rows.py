"""Sounds to put beside edits: targets through VAE and vocoder, and SDEdit of the sources."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from config.schema import MelConfig
from models.tta.autoencoder.saved import load_vae
from models.tta.evaluation.edits import Triplet
from models.tta.ldm.pipeline import Pipeline
from models.tta.ldm.sampling import SamplingSettings, generate
from models.tta.ldm.source import Source
from models.tta.ldm.text_encoder import weights_fingerprint
from models.vocoders.check import reconstructed
from models.vocoders.load import Vocoder
from processors.mel import check_mel, mel_of_wav
from utils.audio import read_wav, wav_bytes
from utils.checkpoint import file_hash
from utils.files import one_writer, write_bytes
from utils.progress import progress

STRENGTHS = (0.25, 0.5, 0.75)  # of SDEdit: the part of the noise that a source is given


def vae_row(
    run: Path,
    vocoder: Vocoder,
    mel: MelConfig,
    triplets: Sequence[Triplet],
    made: Path,
    device: torch.device,
) -> dict[str, Path]:
    """The targets through VAE and vocoder, as an editor without a fault would make them anew.

    Args:
        run: a folder of a VAE's weights.
        made: the folder below which the sounds go.
    """
    saved = load_vae(run)
    check_mel(mel, saved.mel, run)
    vae = saved.vae.to(device)

    def round_trip(_: int, triplet: Triplet) -> np.ndarray:
        wav = read_wav(triplet.target, mel.sample_rate)
        mels = torch.from_numpy(mel_of_wav(wav, mel))[None].to(device)
        return vocoder(reconstructed(vae, mels))[0].cpu().numpy()

    folder = made / f"vae_{_short(saved.fingerprint, weights_fingerprint(vocoder))}"
    return {"VAE + vocoder": make_row(folder, triplets, round_trip, mel.sample_rate)}


def sdedit_rows(
    pipeline: Pipeline,
    vocoder: Vocoder,
    sampling: SamplingSettings,
    triplets: Sequence[Triplet],
    made: Path,
) -> dict[str, Path]:
    """SDEdit (Meng et al. 2022, arXiv:2108.01073): sources, noised, denoised with the caption.

    Args:
        sampling: all but the length, which is the source's; triplet k has the seed `seed` + k.
    """
    rate, rows = pipeline.settings.mel.sample_rate, {}
    networks = (pipeline.unet, pipeline.vae, pipeline.text_encoder.model, vocoder)
    made_by = _short(*map(weights_fingerprint, networks), str(sampling))
    for strength in STRENGTHS:

        def edit(number: int, triplet: Triplet, strength: float = strength) -> np.ndarray:
            source = Source.read(str(triplet.source), rate)
            settings = dataclasses.replace(
                sampling,
                audio=str(triplet.source),
                strength=strength,
                duration=source.seconds,
                seed=sampling.seed + number,
            )
            (sound,) = generate(pipeline, vocoder, [triplet.caption], settings, 1, source)
            return sound.wav

        folder = made / f"sdedit_{strength:g}_{made_by}"
        rows[f"SDEdit {strength:g}"] = make_row(folder, triplets, edit, rate)
    return rows


def make_row(
    folder: Path,
    triplets: Sequence[Triplet],
    make: Callable[[int, Triplet], np.ndarray],
    rate: int,
) -> Path:
    """Writes <folder>_<hash of the triplets>/<Uid>.wav where none is yet; returns that folder.

    Args:
        make: number and triplet -> wav [T] at `rate` Hz.
    """
    told = [(t.uid, t.caption, file_hash(t.source), file_hash(t.target)) for t in triplets]
    folder = folder.with_name(f"{folder.name}_{_short(repr(told))}")
    with one_writer(folder):
        todo = [(n, t) for n, t in enumerate(triplets) if not (folder / f"{t.uid}.wav").is_file()]
        for number, one in progress(todo, title=f"making {folder.name}", unit="sound"):
            path = folder / f"{one.uid}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, wav_bytes(make(number, one), rate))
    return folder


def _short(*parts: str) -> str:
    """A name for a folder of what was made with just these."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
