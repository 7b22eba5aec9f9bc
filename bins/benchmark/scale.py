"""What a start costs by the number of clips: seconds to the first step, memory, open files.

The data sets are links to a few mels and sounds, of which preprocessing says that all is done. The
models are tiny and what networks say of the clips is put into the caches as zeros: neither is what
is measured. Every start is a process of its own; beside a set of FEW clips, which tells what the
models, the libraries and Python take.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bins.benchmark.synthetic import WORDS, write_t5, write_vae
from config.load import load_config
from config.schema import Config, MelConfig
from utils.errors import UserError

if TYPE_CHECKING:  # heavy
    import torch

    from models.base.run import TaskMaker
    from models.base.task import Task

DATASET, FEW, VALID = "Scale", 200, 100
DISTINCT, PER_FILE = 50, 20_000  # files that differ; links to one (ext4: 65,000)
PER_FOLDER = 10_000
FRAMES, WORKERS = 64, 2
PLACES = range(8)  # words of a caption, of which no two are alike
TINY_T5 = {"vocab_size": 1100, "d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2}
TRAIN = {"batch_size": 4, "max_steps": 2, "num_workers": WORKERS, "compile": False}
TRAIN |= {"mixed_precision": "no", "warmup_steps": 1}
STAGE_1 = {
    "autoencoderkl": {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "z_channels": 1},
    "loss": {"disc_channels": 8, "disc_num_layers": 1},
}
UNET = {"in_channels": 1, "out_channels": 1, "model_channels": 32, "channel_mult": [1, 1]}
UNET |= {"num_res_blocks": 1, "attention_resolutions": [2], "num_heads": 2, "context_dim": 16}
STAGE_2 = {"latent": [1, 20, FRAMES // 4], "audioldm": UNET}
STARTS = ("preprocess", "autoencoderkl", "audioldm", "evaluate")


@dataclass
class Start:
    """One start, of a process of its own."""

    name: str
    clips: int
    seconds: float  # from the start of the process to its first step, or to its first sound
    cpu: float  # seconds of all cores, which other processes do not lengthen
    resident: float  # MiB
    peak: float  # MiB
    files: int  # open
    worker: float | None = None  # MiB that are a worker's alone
    cold: float | None = None  # seconds of the start before, which found no caches


def measure(clips: Sequence[int], root: Path) -> Iterator[Start]:
    """Every start on FEW clips, and on as many as asked for."""
    for count in (FEW, *clips):
        place = root / str(count)
        place.mkdir()
        configs = write_configs(place)
        mel = load_config(configs["autoencoderkl"]).preprocess.mel
        overrides = write_data(place, count, mel)
        for name in STARTS:
            command = [name, str(configs.get(name, configs["autoencoderkl"])), *overrides]
            cold = None
            if name in configs:
                cold = _started(["--fill", *command])["seconds"]
            yield Start(name, count, cold=cold, **_started(command))


def _started(words: list[str]) -> dict:
    began = time.time()
    command = [sys.executable, "-m", __name__, *words]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
        raise UserError(f"{' '.join(words)}: ended with {done.returncode}: {last}")
    told = json.loads(done.stdout.splitlines()[-1])
    return {**told, "seconds": told["seconds"] - began}


# ---------------------------------------------------------------- the data


def write_data(root: Path, clips: int, mel: MelConfig) -> list[str]:
    """<root>/Scale of links, whose mels all count as made; the overrides that use it."""
    from processors.clips import Outcome
    from processors.mel import write_mel_settings
    from processors.metadata import MADE_OF, REPORT_FILE, made_of, metadata_text
    from utils.audio import write_wav
    from utils.checkpoint import file_hash

    folder, random = root / DATASET, np.random.default_rng(0)
    distinct = min(max(DISTINCT, clips // PER_FILE + 1), clips)
    uids = [f"{n // PER_FOLDER:04d}/{n:07d}" for n in range(clips)]
    for below in dict.fromkeys(uid.partition("/")[0] for uid in uids):
        (folder / "mel" / below).mkdir(parents=True)
        (folder / "wav" / below).mkdir(parents=True)
    for number, uid in enumerate(uids):
        for kind in ("mel/{}.npy", "wav/{}.wav"):
            path = f"{folder}/{kind.format(uid)}"
            if number >= distinct:
                os.link(f"{folder}/{kind.format(uids[number % distinct])}", path)
            elif path.endswith(".npy"):
                np.save(path, random.normal(-6, 2, (mel.n_mel, FRAMES)).astype(np.float32))
            else:
                write_wav(path, random.uniform(-0.1, 0.1, 1600), mel.sample_rate)
    stats = [os.stat(f"{folder}/wav/{uid}.wav") for uid in uids[:distinct]]
    records: dict[str, list[dict]] = {"train": [], "valid": []}
    with (
        open(folder / "captions.csv", "w", encoding="utf-8") as table,
        open(folder / "mel" / "index.jsonl", "w", encoding="utf-8") as index,
    ):
        table.write("file,caption,split\n")
        for number, uid in enumerate(uids):
            words = " ".join(WORDS[number // len(WORDS) ** place % len(WORDS)] for place in PLACES)
            split = "valid" if number < VALID else "train"
            table.write(f"{uid}.wav,{words},{split}\n")
            records[split].append({"Dataset": DATASET, "Uid": uid, "Caption": words})
            wav = stats[number % distinct]
            outcome = Outcome(uid, None, 0.1, FRAMES, (), f"{number:024d}")
            made_from = [f"wav/{uid}.wav", wav.st_size, wav.st_mtime_ns, mel.fingerprint]
            index.write(json.dumps({**vars(outcome), "made_from": made_from}) + "\n")
    paths = [folder / f"{split}.json" for split in records]
    for path, its in zip(paths, records.values(), strict=True):
        path.write_text(metadata_text(its), encoding="utf-8")
    made = made_of(folder, [folder / "captions.csv"])
    report = {MADE_OF: made, "written": [*map(file_hash, paths)]}
    (folder / REPORT_FILE).write_text(json.dumps(report))
    write_mel_settings(folder, mel)
    return [f"dataset={DATASET}", f"preprocess.processed_dir={root}", f"log_dir={root / 'runs'}"]


def write_configs(root: Path) -> dict[str, Path]:
    """Configs of both stages, tiny, with the weights that the second needs."""
    paths = {name: root / f"{name}.json" for name in ("autoencoderkl", "audioldm")}
    for name, model in (("autoencoderkl", STAGE_1), ("audioldm", STAGE_2)):
        config = {"base_config": f"config/{name}.json", "model": model, "train": TRAIN}
        config["preprocess"] = {"segment_frames": FRAMES}
        paths[name].write_text(json.dumps(config))
    write_t5(root / "t5", TINY_T5)
    write_vae(root / "vae", load_config(paths["autoencoderkl"]))
    config["model"]["text_encoder"] = {"pretrained": str(root / "t5")}
    config["model"]["autoencoder_path"] = str(root / "vae")
    paths["audioldm"].write_text(json.dumps(config))
    return paths


# ---------------------------------------------------------------- a start, in a process of its own


def main(words: list[str]) -> None:
    """Starts what is named, and prints what it took as a line of JSON."""
    fill = words[0] == "--fill"
    name, config, *overrides = words[fill:]
    start = {"preprocess": _preprocess, "evaluate": _evaluate}.get(name, _train)
    config = load_config(config, overrides)
    print(json.dumps(_train(config, _silent_task) if fill else start(config)))


def _train(config: Config, make_task: TaskMaker | None = None) -> dict:
    from bins.tta import train
    from models.base.run import Run

    exp_name, found = f"{config.model_type}-{time.time_ns()}", {}
    run = Run(config, exp_name, make_task or train.make_task)

    def stop() -> bool:
        if run.step:
            found.update(_taken())
        return run.step > 0

    run.stop_requested = stop
    train.loop(run)
    return found


def _preprocess(config: Config) -> dict:
    from preprocessors.prepare import prepare

    [*prepare(config, 1)]
    return {**_taken(), "worker": None}  # those that make mels are gone


def _evaluate(config: Config) -> dict:
    from models.tta.evaluation.clips import read_references

    clips, _, _ = read_references(DATASET, config, None)
    clips[0].read()
    return _taken()


def _taken() -> dict:
    """Now, in seconds; memory in MiB and open files of this process, and of its largest child."""
    status = Path("/proc/self/status").read_text()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    own = [_sum_of(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Private_") for pid in children]
    return {
        "seconds": time.time(),
        "cpu": sum(os.times()[:4]),
        "resident": _sum_of(status, "VmRSS"),
        "peak": _sum_of(status, "VmHWM"),
        "files": len(os.listdir("/proc/self/fd")),
        "worker": max(own, default=None),
    }


def _sum_of(text: str, name: str) -> float:
    """MiB of the lines "<name>...: 123 kB" that /proc tells of a process."""
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(name)) / 1024


def _silent_task(config: Config, *arguments) -> Task:
    """The task; of stage 2, VAE and text encoder give zeros at once while they fill the caches."""
    import torch

    from bins.tta.train import make_task
    from modules.distributions import DiagonalGaussian

    task = make_task(config, *arguments)
    if config.model_type == "AudioLDM":
        z, height, width = task.latent_shape
        encoder = task.text_encoder

        def states(texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
            mask = encoder.tokenize(texts)[1]
            return torch.zeros(*mask.shape, encoder.dim), mask

        task.vae.encode = lambda mels: DiagonalGaussian(
            torch.zeros(len(mels), 2 * z, height, width)
        )
        encoder.encode = states
    return task


if __name__ == "__main__":
    main(sys.argv[1:])
