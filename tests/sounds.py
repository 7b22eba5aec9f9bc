"""Small sounds, data sets and configs for the tests of the data's way."""

from pathlib import Path

import numpy as np

from config.load import load_config
from config.schema import Config
from utils.audio import write_wav

ROOT = Path(__file__).resolve().parent.parent
RATE = 16000


def noise(seconds: float = 0.2, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise of a level between 0.1 and 0.5, float32 [samples]."""
    random = np.random.default_rng(seed)
    return random.uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


def write_sound(path: Path, seed: int = 0, seconds: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, noise(seconds, seed), RATE)
    return path


def make_config(processed_dir: Path, *overrides: str) -> Config:
    """The shipped stage-1 config for the data set "Sounds" in `processed_dir`."""
    given = {"preprocess.processed_dir": str(processed_dir), "dataset": "Sounds"}
    given |= {name: value for name, _, value in (text.partition("=") for text in overrides)}
    texts = [f"{name}={value}" for name, value in given.items()]
    return load_config(ROOT / "egs/tta/autoencoderkl/exp_config.json", texts)


def make_mels_in_process(monkeypatch) -> None:
    """Lets one worker be this process, which saves the start of another; more are processes."""
    from processors import mel_folder

    run_tasks = mel_folder._run_tasks

    def run(tasks, num_workers):
        return (task.run() for task in tasks) if num_workers == 1 else run_tasks(tasks, num_workers)

    monkeypatch.setattr(mel_folder, "_run_tasks", run)


def captions_csv(folder: Path, text: str) -> Path:
    """Writes <folder>/captions.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "captions.csv").write_bytes(text.encode())
    return folder
