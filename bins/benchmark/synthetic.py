"""Synthetic data, T5 and VAE in their real sizes, so that a benchmark needs nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch

from config.schema import Config
from models.tta.autoencoder.autoencoderkl import AutoencoderKL
from models.tta.autoencoder.saved import save_vae
from models.tta.ldm.tokenizer import train_tokenizer
from processors.mel import write_mel_settings

DATASET = "Synthetic"
TOKENS = 20  # of a caption, with </s>
SECONDS = 10  # of a clip
WORDS = ("a", "man", "speaks", "while", "dogs", "bark", "and", "rain", "falls", "on", "the", "roof")
T5_BASE = {"vocab_size": 32128, "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}


def write_data(root: Path, config: Config, clips: int) -> list[str]:
    """<root>/Synthetic/ as preprocessing leaves it, with random mels; the overrides that use it."""
    folder, mel = root / DATASET, config.preprocess.mel
    random, frames = np.random.default_rng(0), math.ceil(SECONDS * mel.frames_per_second)
    (folder / "mel").mkdir(parents=True)
    records = []
    for number in range(clips):
        values = random.normal(-6, 2, (mel.n_mel, frames)).astype(np.float32)
        np.save(folder / "mel" / f"{number}.npy", values)
        caption = " ".join(random.choice(WORDS, TOKENS - 1))
        records.append({"Dataset": DATASET, "Uid": str(number), "Caption": caption})
    write_mel_settings(folder, mel)
    (folder / "train.json").write_text(json.dumps(records))
    (folder / "valid.json").write_text("[]")
    return [f"dataset={DATASET}", f"preprocess.processed_dir={root}", f"log_dir={root / 'runs'}"]


def write_t5(folder: Path, sizes: dict[str, int] | None = None) -> list[str]:
    """An encoder of T5-base's shape, or of these sizes, random; the override that uses it."""
    from transformers import T5Config, T5EncoderModel

    T5EncoderModel(T5Config(**(sizes or T5_BASE))).save_pretrained(folder)
    train_tokenizer([" ".join(WORDS)], 1000).save_pretrained(folder)
    return [f"model.text_encoder.pretrained={folder}"]


def write_vae(folder: Path, config: Config) -> list[str]:
    """The VAE of a stage-1 config with random weights; the override that uses it."""
    torch.manual_seed(0)
    save_vae(folder, AutoencoderKL(config.model.autoencoderkl), config.preprocess.mel)
    return [f"model.autoencoder_path={folder}"]
