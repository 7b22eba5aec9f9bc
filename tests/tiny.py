"""A tiny data set, as preprocessing would leave it, and configs of all models that fit it."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np

from config.load import config_from_dict, merge, read_chain
from config.schema import Config, MelConfig
from processors.clips import pcm_of_wav
from processors.mel import write_mel_settings

ROOT = Path(__file__).resolve().parent.parent
MEL = MelConfig(4000, 64, 64, 32, 16, 0.0, 2000.0)
FRAMES = 16
WORDS = ("a dog", "a cat", "rain", "a bell", "an engine", "a bird", "wind", "a clock")

STAGE_1 = {
    "model": {
        "autoencoderkl": {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "z_channels": 2},
        "loss": {
            "kl_weight": 1e-4,
            "disc_start": 2,
            "disc_channels": 8,
            "disc_num_layers": 1,
            "max_adapt_d_weight": 1e4,  # so high that the clamp hides nothing
        },
    },
}
STAGE_2 = {
    "model": {
        "latent": [2, 8, 8],
        "text_encoder": {
            "pretrained": None,
            "max_tokens": 12,
            "small": {"vocab_size": 80, "d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16},
        },
        "audioldm": {
            "in_channels": 2,
            "out_channels": 2,
            "model_channels": 32,
            "channel_mult": [1, 1],
            "num_res_blocks": 1,
            "attention_resolutions": [2],
            "num_heads": 2,
            "context_dim": 16,
        },
    },
    "inference": {"num_steps": 2, "demo_prompts": ["a dog"]},
}
VOCODER = {
    "preprocess": {"segment_frames": 32},
    "model": {
        "vocos": {"dim": 16, "intermediate_dim": 32, "num_layers": 2},
        "discriminators": {"period_channels": 32, "resolution_channels": 2},
        "loss": {"disc_start": 2},
    },
    "train": {"ema_decay": 0.5, "compile": False},
}
EDITOR = {
    "dataset": ["TinyEdits", "Tiny"],
    "model": {**STAGE_2["model"], "audioldm": {**STAGE_2["model"]["audioldm"], "in_channels": 4}},
    "inference": STAGE_2["inference"],
}
TASKS = ("add", "drop", "replace", "inpaint", "super_resolution", "keep")
MODELS = {
    1: ("autoencoderkl", STAGE_1),
    2: ("audioldm", STAGE_2),
    3: ("vocoder", VOCODER),
    4: ("audit", EDITOR),
}
TRAIN = {
    "batch_size": 4,
    "max_steps": 6,
    "adam": {"lr": 1e-3, "eps": 1e-5},  # rounding noise of a zero gradient makes no step
    "warmup_steps": 2,
    "mixed_precision": "no",
    "num_workers": 0,
    "save_summary_steps": 2,
    "valid_interval": 4,
    "sample_interval": 1000,
    "save_checkpoints_steps": 3,
}


def write_data(root: Path, clips: int = 11, dataset: str = "Tiny") -> Path:
    """<root>/data/<dataset> with mels of several lengths, train.json and valid.json."""
    folder = root / "data" / dataset
    random, of_wavs = np.random.default_rng(5), np.random.default_rng(6)
    for name in ("mel", "pcm"):
        (folder / name).mkdir(parents=True)
    records = []
    for number in range(clips):
        frames = (FRAMES, 9, 40)[number % 3]
        tone = np.sin(np.arange(frames) * 0.3 * (number + 1))[None]
        mel = -5 + 2 * tone + random.normal(size=(MEL.n_mel, frames))
        np.save(folder / "mel" / f"clip {number}.npy", mel.astype(np.float32))
        wav = 0.1 * of_wavs.standard_normal(frames * MEL.hop_size)  # nothing to do with the mel
        np.save(folder / "pcm" / f"clip {number}.npy", pcm_of_wav(wav))
        words = WORDS[number % len(WORDS)]
        records.append({"Dataset": dataset, "Uid": f"clip {number}", "Caption": f"{words} sounds"})
    write_mel_settings(folder, MEL)
    (folder / "train.json").write_text(json.dumps(records[:-3]))
    (folder / "valid.json").write_text(json.dumps(records[-3:]))
    return folder


def write_edits(root: Path, edits: int = 15, dataset: str = "TinyEdits") -> Path:
    """<root>/data/<dataset> with triplets of every task, the last six for validation."""
    folder, random = root / "data" / dataset, np.random.default_rng(7)
    (folder / "mel").mkdir(parents=True)
    records = []
    for number in range(edits):
        task, word = TASKS[number % len(TASKS)], WORDS[number % len(WORDS)]
        record = {"Dataset": dataset, "Uid": f"{number}", "Task": task, "Caption": f"{word} sounds"}
        record |= {"Instruction": f"{task.replace('_', ' ')} {word}", "Input": f"{number}_in"}
        record["Output"] = record["Input"] if task == "keep" else f"{number}_out"
        for uid in {record["Input"], record["Output"]}:
            mel = -5 + random.normal(size=(MEL.n_mel, (FRAMES, 9, 40)[number % 3]))
            np.save(folder / "mel" / f"{uid}.npy", mel.astype(np.float32))
        records.append(record)
    write_mel_settings(folder, MEL)
    (folder / "train.json").write_text(json.dumps(records[:-6]))
    (folder / "valid.json").write_text(json.dumps(records[-6:]))
    return folder


def write_config(root: Path, stage: int, **train) -> Path:
    """<root>/stage<N>.json, whose runs and data lie below root; 3: vocoder, 4: editor."""
    base, own = MODELS[stage]
    mel = {name: getattr(MEL, name) for name in MEL.__dataclass_fields__}
    config = {
        "base_config": f"config/{base}.json",
        "dataset": ["Tiny"],
        "log_dir": str(root / "runs"),
        "preprocess": {"processed_dir": str(root / "data"), "segment_frames": FRAMES, **mel},
        "train": copy.deepcopy(TRAIN),
    }
    merge(config, copy.deepcopy(own), {}, "")
    merge(config["train"], train, {}, "")
    path = root / f"stage{stage}.json"
    path.write_text(json.dumps(config, indent=1))
    return path


def load(path: Path, changes: dict | None = None) -> Config:
    """The config of a file, with changes as nested dictionaries."""
    data, origins = read_chain(path)
    merge(data, changes or {}, origins, "the test")
    return config_from_dict(data, origins, str(path))


def environment(**more: str) -> dict[str, str]:
    """For a started process: one thread, no device, nothing of an outer launcher."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}
