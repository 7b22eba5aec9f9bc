"""Trouble around a run (disks, devices, other runs, the shell): no hang and no lost work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import tiny, warm
from tests.compare import scalars, tensors
from utils.checkpoint import read_json


@pytest.fixture
def place(tmp_path) -> Path:
    tiny.write_data(tmp_path)
    for stage in (1, 2):
        tiny.write_config(tmp_path, stage, sample_interval=2)
    return tmp_path


@pytest.fixture
def arguments(trained):
    """Of a stage-2 run on data and with a VAE that are there."""
    return ["--config", trained / "stage2.json", f"model.autoencoder_path={trained}/runs/vae"]


@dataclass
class Refuse:
    """Lets every file operation on such paths fail from the `count`-th one on (from 1)."""

    paths: tuple[str, ...]
    count: int = 1

    def __call__(self, event: str, arguments: tuple) -> None:
        if event in ("open", "os.mkdir") and any(part in str(arguments[0]) for part in self.paths):
            self.count -= 1
            if self.count <= 0:
                raise PermissionError(13, "Permission denied")


@dataclass
class Rename:
    """Renames a folder at the `count`-th opening of such a path."""

    path: str
    count: int
    folder: Path

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open" and self.path in str(arguments[0]):
            self.count -= 1
            if self.count == 0:
                self.folder.rename(self.folder.with_name("moved"))


def test_what_cannot_be_written_for_tensorboard_is_a_line_and_training_goes_on(place):
    log, config = place / "log", ["--config", place / "stage1.json", "--exp_name"]
    assert warm.run(log, *config, "well") == 0
    log.unlink()
    refuse = Refuse(("/samples", "/tensorboard"))
    assert warm.run(log, *config, "ill", trap=refuse) == 0, log.read_text()
    said = log.read_text()
    assert "step 2: not written for TensorBoard: [Errno 13] Permission denied" in said
    assert "Traceback" not in said
    well, ill = tensors(place / "runs/well", 6), tensors(place / "runs/ill", 6)
    assert all(tensor.equal(ill[name]) for name, tensor in well.items())


def test_a_checkpoint_is_saved_before_validation_can_fail(place):
    log, config = place / "log", ["--config", place / "stage1.json", "--exp_name", "vae"]
    refuse = Refuse(("/mel/clip 9.npy",), count=4)  # numpy opens a file three times
    assert warm.run(log, *config, "train.valid_interval=100", trap=refuse) == 2
    assert "clip 9.npy: not a whole mel file" in log.read_text()
    assert "Traceback" not in log.read_text()
    kept = place / "runs/vae/checkpoints"
    assert [path.name for path in kept.iterdir()] == ["step-00000003"]
    assert warm.run(log, *config) == 0


def test_a_damaged_clip_to_validate_with_is_found_at_the_start(place):
    path = place / "data/Tiny/mel/clip 9.npy"
    path.write_bytes(path.read_bytes()[:-1])
    log, config = place / "log", ["--config", place / "stage1.json", "--exp_name", "vae"]
    assert warm.run(log, *config) == 2
    assert "clip 9.npy: not a whole mel file" in log.read_text()
    assert not (place / "runs/vae/checkpoints").exists()


def test_no_prompts_are_refused_before_the_first_step(arguments, tmp_path):
    log = tmp_path / "log"
    more = [f"log_dir={tmp_path}/runs", "--exp_name", "silent", "inference.demo_prompts=[]"]
    assert warm.run(log, *arguments, *more, "train.sample_interval=1") == 2
    assert "inference.demo_prompts: [] must have at least 1 item" in log.read_text()
    assert not (tmp_path / "runs/silent").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device that is always full")
def test_no_output_device_ends_a_run(place):
    """As where `tee` was stopped by the same Ctrl-C, or a terminal was closed."""
    config = ["--config", place / "stage1.json", "--exp_name", "vae"]
    assert warm.run(Path("/dev/full"), *config, "train.num_workers=1") == 0
    assert (place / "runs/vae/final/vae.safetensors").is_file()
    assert "finished" in (place / "runs/vae/log.txt").read_text()


def test_without_a_terminal_progress_is_whole_lines(place):
    log = place / "log"
    assert warm.run(log, "--config", place / "stage1.json", "--exp_name", "vae") == 0
    said = log.read_text()
    assert "\r" not in said
    assert "vae: 0 of 6, 00:00 gone" in said
    assert all(line.strip() for line in said.splitlines())


def test_a_run_folder_that_is_renamed_is_made_anew(place):
    run = place / "runs/vae"
    log, config = place / "log", ["--config", place / "stage1.json", "--exp_name", "vae"]
    rename = Rename("/mel/clip", 75, run)
    assert warm.run(log, *config, "train.max_steps=12", trap=rename) == 0, log.read_text()
    said = log.read_text()
    assert said.count(f"{run} was renamed or removed; the run goes on in a new folder") == 1
    assert "Traceback" not in said
    assert read_json(run / "config.json")["train"]["max_steps"] == 12
    assert "step 12: finished" in (run / "log.txt").read_text()
    assert (run / "checkpoints/step-00000012").is_dir()
    assert (run.with_name("moved") / "log.txt").is_file()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "PMI_SIZE"])
@pytest.mark.parametrize("size", ["2", "two"])
def test_a_launcher_s_variable_without_a_launcher(place, name, size):
    process = warm.start(place / "log", "--config", place / "stage1.json", **{name: size})
    process.join(60)
    assert process.exitcode == 2
    (line,) = (place / "log").read_text().splitlines()
    assert line.startswith(f"error: the environment has {name}={size}, as a launcher of several")
    assert f"env -u {name} COMMAND" in line


def test_two_runs_at_once_share_the_cache(arguments, tmp_path):
    logs = [tmp_path / f"log{number}" for number in range(2)]
    more = [f"log_dir={tmp_path}/runs", f"preprocess.cache_dir={tmp_path}/cache"]
    runs = [
        warm.start(log, *arguments, *more, "--exp_name", f"run{number}")
        for number, log in enumerate(logs)
    ]
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0], [log.read_text() for log in logs]
    assert len(list((tmp_path / "cache").glob("latent-*/block-*.npy"))) == 1
    one, other = (load_file(tmp_path / f"runs/run{n}/final/unet.safetensors") for n in range(2))
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


def test_the_cache_goes_where_the_key_says(place, trained, arguments, tmp_path):
    elsewhere, data = tmp_path / "elsewhere", f"preprocess.processed_dir={place}/data"
    more = [data, f"preprocess.cache_dir={elsewhere}", f"log_dir={tmp_path}/runs"]
    log = tmp_path / "log"
    assert warm.run(log, *arguments, *more, "train.max_steps=1") == 0, log.read_text()
    assert list(elsewhere.glob("latent-*"))
    assert not (place / "data/cache").exists()


def test_the_vae_that_was_taken_is_named(trained, tmp_path):
    log, runs = tmp_path / "log", trained / "runs"
    arguments = ["--config", trained / "stage2.json", "--exp_name", "named"]
    arguments += ["model.text_encoder.max_tokens=3", "train.max_steps=4"]
    assert warm.run(log, *arguments) == 0, log.read_text()
    taken = read_json(runs / "named/final/config.json")["made_with"]["autoencoder"]
    log.unlink()
    arguments[-1] = "train.max_steps=5"
    assert warm.run(log, *arguments) == 0, log.read_text()  # from the copy that it has
    resumed = read_json(runs / "named/final/config.json")["made_with"]["autoencoder"]
    said = log.read_text()
    for file in (runs / "named").rglob("*"):
        file.is_file() and file.unlink()
    assert taken == resumed
    assert taken["folder"] == str((runs / "vae/final").resolve())
    assert len(taken["fingerprint"]) > 12
    assert f"takes the VAE in {taken['folder']}" in said
    assert "captions are cut to 3 tokens (model.text_encoder.max_tokens), such as 'a" in said


def test_a_discriminator_that_never_takes_part_is_named(place):
    log, config = place / "log", ["--config", place / "stage1.json", "train.max_steps=2"]
    said = "the discriminator never takes part: train.max_steps 2 is not above"
    assert warm.run(log, *config, "--dry_run") == 0
    assert said in log.read_text()
    log.unlink()
    assert warm.run(log, *config, "--exp_name", "vae") == 0
    assert said in (place / "runs/vae/log.txt").read_text()
    assert "train/d_loss" not in scalars(place / "runs/vae")
