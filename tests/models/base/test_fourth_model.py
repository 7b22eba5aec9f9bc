"""Adding a model touches a folder, a config and a line: an empty one is added to a copy."""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

from tests import tiny, warm

# models/tta/empty/training.py, the folder
TASK = '''
"""A model of one number that is nothing to the sounds."""

import itertools

import torch

from models.base.task import Loss
from modules.optimizer import adamw
from processors.metadata import load_split
from utils.checkpoint import save_tensors


class EmptyTask:
    ema, shown, joint_step, begun_from = None, ("loss",), 0, None

    def __init__(self, config, accelerator, share, checkpoint) -> None:
        self.train_records = load_split(config, "train")
        self.valid_records = load_split(config, "valid")
        self.network = torch.nn.Linear(1, 1)
        self.trainable = {"empty": self.network}
        self.optimizers = {"empty": adamw(self.network.parameters(), config.train.adam)}
        self.wrapped = (accelerator.prepare_model(self.network),)
        self.summary, self.notes, self.made_from = {}, [], {}
        self.target = config.model.target

    def prepare_data(self, cache) -> None:
        pass

    def batches(self, step):
        return itertools.repeat({"x": torch.ones(1, 1)})

    def clips_of(self, step):
        return []

    def losses(self, batch, step, micro):
        loss = (self.network(batch["x"]) - self.target).square().mean()
        yield Loss("empty", loss, {"loss": loss.detach()}, {})

    def after_step(self, step, means):
        return {}

    def troubles(self, metrics):
        return {}

    def validate(self):
        return {}

    def samples(self):
        return []

    def save_for_inference(self, folder) -> None:
        save_tensors(folder / "empty.safetensors", self.network.state_dict())

    def save_training(self, folder) -> None:
        pass
'''
# Its config: the keys' types, at the end of config/schema.py ...
TYPES = """
@typed
class EmptyModel:
    target: float


@typed
class EmptyExperiment(Experiment):
    model_type: Literal["Empty"]
    model: EmptyModel


Config = AutoencoderKLExperiment | AudioLDMExperiment | AUDITExperiment | EmptyExperiment
"""
CONFIG = """Config = (
    AutoencoderKLExperiment
    | AudioLDMExperiment
    | AUDITExperiment
    | VocoderExperiment
    | EditsExperiment
)
"""
# ... and their values.
VALUES = {"base_config": "config/base.json", "model_type": "Empty", "model": {"target": 3.0}}
# The line, in TASKS of bins/tta/train.py.
LINE = '    "Empty": "models.tta.empty.training:EmptyTask",\n'


PROJECT = ("bins", "config", "models", "modules", "preprocessors", "processors", "utils")


def train_in_copy(root: Path, log: Path, calls: list[list[str]]) -> None:
    """In a process that has imported all that the project needs, and then the copy's own."""
    for name in [name for name in sys.modules if name.partition(".")[0] in PROJECT]:
        del sys.modules[name]
    sys.path.insert(0, str(root))
    os.chdir(root)
    os.environ.update(tiny.environment())
    for descriptor in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    for arguments in calls:
        sys.argv = ["bins/tta/train.py", *arguments]
        try:
            runpy.run_path("bins/tta/train.py", run_name="__main__")
        except SystemExit as ended:
            if ended.code:
                raise
    assert Path(sys.modules["models.base.run"].__file__).is_relative_to(root)


def replace_once(path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, path
    path.write_text(text.replace(old, new))


def test_an_empty_fourth_model_is_a_folder_a_config_and_a_line(trained, tmp_path):
    root = tmp_path / "copy"
    for folder in PROJECT:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(tiny.ROOT / folder, root / folder, ignore=ignored)
    (root / "models/tta/empty").mkdir()
    (root / "models/tta/empty/training.py").write_text(TASK)
    replace_once(root / "config/schema.py", CONFIG, TYPES)
    (root / "config/empty.json").write_text(json.dumps(VALUES))
    replace_once(root / "bins/tta/train.py", "TASKS = {\n", "TASKS = {\n" + LINE)

    config = json.loads((trained / "stage1.json").read_text())
    config = {**config, "base_config": "config/empty.json", "model": {}}
    (tmp_path / "empty.json").write_text(json.dumps({**config, "log_dir": str(tmp_path / "runs")}))
    config = ["--config", str(tmp_path / "empty.json")]
    calls = [[*config, "--dry_run"], [*config, "--exp_name", "empty"]]
    process = warm.start_call(train_in_copy, root, tmp_path / "log", calls)
    process.join()
    assert process.exitcode == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "runs/empty/final/empty.safetensors").is_file()
    saved = json.loads((tmp_path / "runs/empty/final/config.json").read_text())
    assert saved["model"] == {"target": 3.0}
