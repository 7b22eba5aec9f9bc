import errno
import os
import pickle
import subprocess
import sys

import pytest
import torch

from tests import tiny, warm
from utils.checkpoint import (
    Checkpoints,
    load_tensors,
    load_weights,
    optimizer_tensors,
    read_json,
    restore_optimizer,
    save_tensors,
    whole_folder,
    write_json,
)
from utils.errors import UserError


def test_tensors_come_back_as_they_were(tmp_path):
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    tied = torch.arange(5.0)
    tensors = {"a": weight, "b": tied, "also b": tied, "part": tied[1:3], "count": torch.tensor(7)}
    save_tensors(tmp_path / "x.safetensors", tensors)
    found = load_tensors(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor), name


def test_no_tensors_at_all(tmp_path):
    save_tensors(tmp_path / "x.safetensors", {})
    assert load_tensors(tmp_path / "x.safetensors") == {}


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "code ran"),)

    path = tmp_path / "vae.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"vae\.safetensors: not a whole safetensors file"):
        load_tensors(path)
    torch.save({"x": Bomb()}, path)
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_tensors(path)
    assert not (tmp_path / "code ran").exists()


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"x\.safetensors: not a whole safetensors file"):
        load_tensors(path)
    with pytest.raises(UserError, match="no such file"):
        load_tensors(tmp_path / "y.safetensors")


def test_weights_of_another_model_are_listed(tmp_path):
    module = torch.nn.Linear(2, 3)
    with pytest.raises(UserError) as caught:
        load_weights(module, {"weight": torch.zeros(2, 3), "other": torch.zeros(1)}, tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}: weights of another model than its config says: Missing")
    assert 'Missing key(s) in state_dict: "bias"' in said
    assert 'Unexpected key(s) in state_dict: "other"' in said
    assert "size mismatch for weight" in said


def test_an_optimizer_goes_on_as_if_it_had_never_stopped(tmp_path):
    def learn(weight, optimizer, steps):
        for step in range(steps):
            weight.grad = torch.sin(torch.arange(4.0) + step)
            optimizer.step()

    torch.manual_seed(0)
    alone = torch.nn.Parameter(torch.randn(4))
    stopped = torch.nn.Parameter(alone.detach().clone())
    optimizer = torch.optim.AdamW([alone], fused=True)
    learn(alone, optimizer, 2)
    learn(alone, optimizer, 2)
    first = torch.optim.AdamW([stopped], fused=True)
    learn(stopped, first, 2)
    save_tensors(tmp_path / "adam.safetensors", optimizer_tensors(first))
    second = torch.optim.AdamW([stopped], fused=True)
    restore_optimizer(second, load_tensors(tmp_path / "adam.safetensors"), tmp_path)
    learn(stopped, second, 2)
    assert torch.equal(alone, stopped)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
        ),
    ],
)
def test_moments_lie_as_their_weights_do(device, tmp_path):
    """The fused kernel of a GPU refuses to go on where they do not."""
    convolution = torch.nn.Conv2d(3, 4, 3).to(device, memory_format=torch.channels_last)

    def learn(optimizer):
        convolution(torch.ones(1, 3, 5, 5, device=device)).sum().backward()
        optimizer.step()

    first = torch.optim.AdamW(convolution.parameters(), fused=True)
    learn(first)
    save_tensors(tmp_path / "adam.safetensors", optimizer_tensors(first))
    second = torch.optim.AdamW(convolution.parameters(), fused=True)
    restore_optimizer(second, load_tensors(tmp_path / "adam.safetensors"), tmp_path)
    for name in ("exp_avg", "exp_avg_sq"):
        moment = second.state[convolution.weight][name]
        assert moment.stride() == convolution.weight.stride()
        assert torch.equal(moment, first.state[convolution.weight][name])
    learn(second)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "final"
    with whole_folder(path) as folder:
        (folder / "a").write_text("first")
        assert not path.exists()
    assert (path / "a").read_text() == "first"
    with pytest.raises(TypeError), whole_folder(path) as folder:
        (folder / "a").write_text(2)
    assert (path / "a").read_text() == "first"
    with whole_folder(path) as folder:
        (folder / "b").write_text("third")
    assert [file.name for file in path.iterdir()] == ["b"]
    assert [file.name for file in tmp_path.iterdir()] == ["final"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device that is always full")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """/dev/full fails as a full disk does, in the middle of what safetensors writes."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {}, lambda folder: save_tensors(folder / "w", {"a": torch.ones(9)}))

    def write(folder):
        (folder / "w").symlink_to("/dev/full")
        with open(folder / "w", "wb") as file:
            file.write(bytes(100_000))

    with pytest.raises(UserError, match=r"step-00000002: the disk is full; make room on it and"):
        checkpoints.save(2, {}, write)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoints.newest()[1]["step"] == 1


def test_weights_are_for_all_whom_the_umask_lets_read(tmp_path):
    before = os.umask(0o027)
    try:
        with whole_folder(tmp_path / "final") as folder:
            save_tensors(folder / "w.safetensors", {"a": torch.ones(9)})
    finally:
        os.umask(before)
    assert (tmp_path / "final" / "w.safetensors").stat().st_mode & 0o777 == 0o640


def can_mount() -> bool:
    return os.geteuid() == 0 and os.path.exists("/bin/mount")


@pytest.mark.skipif(not can_mount(), reason="a small disk of one's own needs root")
def test_training_on_a_disk_that_fills_up(tmp_path):
    """A real one: what is left is a clear error and the checkpoint before."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=7m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        tiny.write_data(tmp_path)
        config = tiny.write_config(tmp_path, 1, save_checkpoints_steps=2, max_steps=40)
        log = tmp_path / "log"
        assert warm.run(log, "--config", config, "--exp_name", "vae", f"log_dir={disk}") == 2
        said = log.read_text()
        assert "the disk is full; make room on it and run the same command again" in said
        assert "Traceback" not in said
        folder = disk / "vae" / "checkpoints"
        left = sorted(path.name for path in folder.iterdir())
        assert left
        assert all(name.startswith("step-") for name in left)
        assert Checkpoints(folder, 3).newest()[0].name == left[-1]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_another_error_while_saving_is_not_called_a_full_disk(tmp_path):
    def write(folder):
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        Checkpoints(tmp_path, keep=1).save(1, {}, write)


def test_newest_and_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        checkpoints.save(step, {"best_step": best}, lambda folder: None)
    names = [path.name for path in checkpoints.all()]
    assert names == ["step-00000002", "step-00000004", "step-00000005"]


def test_what_a_killed_run_left_half_written_is_cleared(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(3, {}, lambda folder: None)
    (tmp_path / ".step-00000004.incomplete" / "text_encoder").mkdir(parents=True)
    (tmp_path / ".step-00000001.old").mkdir()
    checkpoints.clear_unfinished()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def damage(path, how: str) -> None:
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("how", "fault"), [("missing", "missing"), ("cut", "has 99 bytes, not 100 as saved")]
)
def test_damage_is_found_and_the_checkpoint_before_named(tmp_path, how, fault):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (5, 10):
        checkpoints.save(step, {}, lambda f: save_tensors(f / "w", {"a": torch.ones(9)}))
    damage(tmp_path / "step-00000010" / "w", how)
    with pytest.raises(UserError) as caught:
        checkpoints.newest()
    assert str(caught.value).startswith(f"{tmp_path}/step-00000010/w: {fault}")
    assert "step-00000005 is before it" in str(caught.value)
    assert f"rm -r '{tmp_path}/step-00000010' and run the same command again" in str(caught.value)


def test_only_own_folders_are_counted_and_removed(tmp_path):
    """A user's copy, an archive, a link to elsewhere, other numbers of digits."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "checkpoints"
    for name in ("step-00000001-good", "step-2", "step-000000099", ".step-00000001.mine"):
        (folder / name).mkdir(parents=True)
    (folder / "step-00000009").symlink_to(elsewhere)
    (folder / "step-00000008").write_text("a file")
    (folder / "step-00000007.tar.gz").write_text("an archive")
    others = {path.name for path in folder.iterdir()}
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.clear_unfinished()
    for step in (1, 2, 3):
        checkpoints.save(step, {}, lambda folder: None)
    assert [path.name for path in checkpoints.all()] == ["step-00000003"]
    assert checkpoints.newest()[1]["step"] == 3
    assert {path.name for path in folder.iterdir()} == {*others, "step-00000003"}


def test_the_best_is_noted_after_the_save(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (1, 2):
        checkpoints.save(step, {"best_step": None}, lambda folder: None)
    checkpoints.keep_best(2, 0.25)
    assert checkpoints.newest()[1] == {"step": 2, "best_step": 2, "best_loss": 0.25, "files": {}}
    checkpoints.save(3, {"best_step": 2}, lambda folder: None)
    checkpoints.keep_best(3, 0.125)
    assert [path.name for path in checkpoints.all()] == ["step-00000003"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"step": 1, "files": {"a": [3]}}', "\x00", "[" * 9999]
)
def test_a_state_that_is_none_is_an_error(tmp_path, text):
    Checkpoints(tmp_path, keep=2).save(5, {}, lambda folder: None)
    (tmp_path / "step-00000005" / "state.json").write_text(text)
    with pytest.raises(UserError, match=r"state\.json.*\nThe newest checkpoint is damaged"):
        Checkpoints(tmp_path, keep=2).newest()


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "a.json", {"name": "größe"})
    assert read_json(tmp_path / "a.json") == {"name": "größe"}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"name": object()})
    assert read_json(tmp_path / "a.json") == {"name": "größe"}


def test_finding_checkpoints_needs_no_torch():
    code = "import sys, utils.checkpoint, utils.run_folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT).returncode == 0
