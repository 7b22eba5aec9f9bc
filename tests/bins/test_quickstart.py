"""The quickstart's commands, end to end, with little of everything."""

import csv
import json
import os
import re
import subprocess
import time
from urllib.parse import unquote

import pytest

from tests import tiny

SCRIPTS = tiny.ROOT / "egs/tta/quickstart"
LITTLE = ["--clips_per_kind", "10", "--prompts_per_kind=1", "--num_steps", "2"]
# Two steps of each stage, and nothing on the way but what comes at the end.
SHORT = ["train.max_steps=2", "train.batch_size=4", "train.valid_clips=4"]
SHORT += ["train.sample_interval=99"]
TASKS = ("add", "drop", "replace", "inpaint", "super_resolution")
EDITS = ("drop", "inpaint")  # a kind goes, and none does
NUMBERS = {"train": TASKS, "valid": EDITS, "test": EDITS}
FEW = [f"edits.{s}.{task}={int(task in NUMBERS[s])}" for s in NUMBERS for task in TASKS]


@pytest.fixture(scope="module")
def quickstart(warm_environment):
    def run(cwd, *arguments, script="run.sh"):
        return subprocess.run(
            ["sh", SCRIPTS / script, *arguments],
            cwd=cwd,
            env=tiny.environment(VIRTUAL_ENV=str(warm_environment)),
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope="module")
def first(quickstart, tmp_path_factory):
    """A folder with a quickstart in it, and what its command said."""
    here = tmp_path_factory.mktemp("quickstart")
    stopped = here / "my first" / "sounds" / "0000.wav"  # what is left of a run that was stopped
    stopped.parent.mkdir(parents=True)
    stopped.touch()
    done = quickstart(here, *LITTLE, "--output_dir", "my first", *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    return here / "my first", done.stdout


def test_sounds_from_nothing(first):
    folder, said = first
    assert "of 10 sounds recognised as what was asked for" in said
    assert [path.name for path in folder.parent.iterdir()] == ["my first"]
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert all(f"{number:04d}.wav" in page for number in range(10))
    with (folder / "recognised.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == (folder / "prompts.txt").read_text().splitlines()
    stages = [path.name[2:] for path in sorted((folder / "seconds").iterdir())]
    assert stages.pop() == "listening", "whose time is known only after the page is written"
    assert len(stages) == 5
    assert all(f'<th scope="row">{stage}</th>' in page for stage in stages)
    assert len(list((folder / "sounds").glob("*.wav"))) == 10
    receipt = json.loads((folder / "sounds" / "0009.json").read_text())
    assert receipt["num_steps"] == 2
    for run in ("quickstart_autoencoderkl", "quickstart_audioldm"):
        config = json.loads((folder / "runs" / run / "final" / "config.json").read_text())
        assert (config["train"]["max_steps"], config["made_with"]["step"]) == (2, 2)


def test_edits_after_it(quickstart, first):
    folder, _ = first
    arguments = ("--output_dir", folder, "--num_steps=1", *FEW, "edits.train.keep=0", *SHORT)
    done = quickstart(folder, *arguments, script="run_edit.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 2 edits followed, and the rest kept" in done.stdout
    records = json.loads((folder / "data" / "DemoEdits" / "test.json").read_text())
    assert [record["Task"] for record in records] == list(EDITS)
    rows = ["edited", "VAE + vocoder", "SDEdit 0.25", "SDEdit 0.5", "SDEdit 0.75"]
    page = (folder / "edits" / "index.html").read_text(encoding="utf-8")
    assert all(f'<th scope="row">{row}</th>' in page for row in [*rows, "input", "target"])
    files = re.findall(r'src="([^"]+)"', page)
    assert len(files) == 2 * 3 * len(EDITS)
    assert all((folder / "edits" / unquote(file)).is_file() for file in files)
    assert "making triplets" in page
    assert "training the editor" in page
    receipt = json.loads((folder / "edits/sounds/test_drop_000000.json").read_text())
    assert (receipt["num_steps"], receipt["text"]) == (1, records[0]["Instruction"])
    config = json.loads((folder / "runs/quickstart_audit/final/config.json").read_text())
    assert config["model_type"] == "AUDIT"
    assert config["made_with"]["step"] == 2


def test_sounds_of_other_weights_are_made_anew(quickstart, first):
    folder, _ = first
    sound, later = folder / "sounds" / "0009.wav", time.time() + 5
    made = sound.stat().st_mtime_ns
    os.utime(folder / "runs/quickstart_audioldm/final", (later, later))
    again = quickstart(folder, *LITTLE, "--output_dir", folder, *SHORT)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "finished at step 2" in again.stdout
    assert sound.stat().st_mtime_ns > made


def test_edits_need_a_quickstart_first(quickstart, tmp_path):
    done = quickstart(tmp_path, "--output_dir=x", script="run_edit.sh")
    assert (done.returncode, done.stderr.strip()) == (
        2,
        f"error: {tmp_path}/x: no quickstart has ended there; first run:"
        f" sh egs/tta/quickstart/run.sh --output_dir '{tmp_path}/x'",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output"], "error: --output: no such option; see: sh egs/tta/quickstart/run.sh --help"),
        (["train.max_steps=2", "--num_steps"], "error: --num_steps needs a value"),
        (["--clips_per_kind=3"], "error: --clips_per_kind 3 must be from 10 to 1000"),
    ],
)
def test_options_that_cannot_be(quickstart, tmp_path, arguments, message):
    done = quickstart(tmp_path, "--output_dir=x", *arguments)
    assert (done.returncode, done.stderr.strip()) == (2, message)


@pytest.mark.parametrize("script", ["run.sh", "run_edit.sh"])
def test_help_names_every_option(quickstart, tmp_path, script):
    text = quickstart(tmp_path, "--help", script=script).stdout
    options = re.search('options="(.*)"', (SCRIPTS / script).read_text())[1].split()
    assert len(options) >= 2
    assert all(option in text for option in options)
    assert f"sh egs/tta/quickstart/{script} [options]" in text
    done = quickstart(tmp_path, "--output", script=script)
    assert f"see: sh egs/tta/quickstart/{script} --help" in done.stderr
