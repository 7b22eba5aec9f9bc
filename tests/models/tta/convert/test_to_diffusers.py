"""An exported model, in a process that cannot see this repository."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.tta.convert.from_diffusers import read_diffusers
from models.tta.convert.to_diffusers import export
from models.tta.ldm.pipeline import PipelineSettings, load_pipeline
from models.vocoders.load import load_vocoder
from tests import tiny
from tests.models.tta.convert.small_models import small_pipeline, write_vocoder, write_vocos
from utils.checkpoint import load_tensors
from utils.errors import UserError

PROMPTS = ["a dog sounds", "rain and wind and a bell, then an engine </s>"]
SEEDS = [3, 11]
# name: sampler, vocoder, what the noise schedule is changed to
MODELS = {
    "plain": ("dpm++", "hifigan", "epsilon"),
    "v3": ("pndm", "hifigan_v3", "epsilon"),
    "griffin_lim": ("ddim", "griffin_lim", "v_prediction"),
    "unipc": ("unipc", "vocos", "v_prediction"),
    "flow map": ("euler", "griffin_lim", "flow_prediction"),
}
FLOW_MAP = {
    "audioldm": {"span_embedding": True},
    "flow_map": {"guidance_scale": None, "jump_every": 2},
}
SCRIPT = """
import sys
import numpy as np
import torch
from diffusers import DiffusionPipeline

root, prompts = sys.argv[1], sys.argv[2:]
for name in {names}:
    pipe = DiffusionPipeline.from_pretrained(
        f"{{root}}/{{name}}", custom_pipeline="pipeline", trust_remote_code=True
    )
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in {seeds}]
    audios = pipe(prompts, generator=generators).audios
    generators = [torch.Generator().manual_seed(seed) for seed in {seeds}]
    mels = pipe(prompts, generator=generators, output_type="mel").audios
    np.savez(f"{{name}}.npz", audios=audios, mels=mels)
    one = pipe(
        prompts[0],
        negative_prompt="rain",
        audio_length_in_s=0.1,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(5),
    )
    np.save(f"{{name}}_short.npy", one.audios)
strangers = [n for n in ("models", "utils", "modules", "processors") if n in sys.modules]
assert not strangers, strangers
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """{name: (our pipeline, our vocoder)} and the folder with the exports of those names."""
    root = tmp_path_factory.mktemp("exported")
    write_vocoder(root / "hifigan")
    write_vocoder(root / "hifigan_v3", plain=True)
    write_vocos(root / "vocos")
    ours = {}
    for name, (sampler, vocoder, target) in MODELS.items():
        pipeline = small_pipeline(
            root / "configs",
            inference={
                **{"sampler": sampler, "num_steps": 4, "guidance_scale": 2.5},
                "guidance_mean": 0.4,
            },
            train={"init_from": "a teacher, which is not needed here"},
            model={
                "noise_scheduler": {"prediction_type": target},
                "audioldm": {
                    "patch_size": 2 if name == "griffin_lim" else 1,
                    "pooled_text": name == "v3",
                },
                **(FLOW_MAP if name == "flow map" else {}),
            },
        )
        path = vocoder if vocoder == "griffin_lim" else str(root / vocoder)
        ours[name] = pipeline, load_vocoder(path, tiny.MEL)
        export(*ours[name], f"# {name}", root / name)
    return ours, root


def test_it_sounds_the_same_where_this_repository_is_not(exported, tmp_path):
    ours, root = exported
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", SCRIPT.format(names=list(ours), seeds=SEEDS), str(root), *PROMPTS],
        cwd=tmp_path,
        env={**kept, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        check=True,
        timeout=900,
    )
    for name, (pipeline, vocoder) in ours.items():
        mels = pipeline(PROMPTS, SEEDS)
        files = {path.name for path in (root / name).glob("*.py")}
        assert files == {"pipeline.py", "griffin_lim.py"}
        found = np.load(tmp_path / f"{name}.npz")
        assert mels.std() > 0.01
        np.testing.assert_allclose(found["mels"], mels, rtol=0, atol=1e-4, err_msg=name)
        assert found["audios"].shape == (2, tiny.FRAMES * tiny.MEL.hop_size)
        expected = vocoder(mels).numpy()
        assert expected.std() > 0.01
        # Griffin-Lim's steps let what rounding left in the mel grow a little.
        close = {
            "rtol": 0,
            "atol": 1e-2 if MODELS[name][1] == "griffin_lim" else 1e-3,
            "err_msg": name,
        }
        np.testing.assert_allclose(found["audios"], expected, **close)

        short = pipeline.settings.sampling_with(num_steps=3, guidance_scale=1.0, duration=0.1)
        mel = pipeline(PROMPTS[:1], [5], short)
        short = np.load(tmp_path / f"{name}_short.npy")
        assert short.shape == (1, 400)
        expected = vocoder(mel)[:, :400].numpy()
        np.testing.assert_allclose(short, expected, **close)


@pytest.mark.parametrize("name", MODELS)
def test_exported_and_imported_again_it_is_the_same_bit_for_bit(exported, tmp_path, name):
    ours, root = exported
    pipeline, vocoder = ours[name]
    foreign = tiny.load(Path("egs/tta/audioldm/exp_config_audioldm_vae.json"))
    found = read_diffusers([root / name], PipelineSettings.of(foreign), layout=None)
    found.write(tmp_path / "again", "diffusers")
    again = PipelineSettings.read(tmp_path / "again")
    with_own_vocoder = "griffin_lim" if MODELS[name][1] == "griffin_lim" else "vocoder"
    assert again == dataclasses.replace(
        pipeline.settings,
        vocoder=with_own_vocoder,
        mixed_precision="auto",
        made_from={"imported_from": "diffusers"},
    )
    mels = load_pipeline(tmp_path / "again", "cpu")(PROMPTS, SEEDS)
    if MODELS[name][1] != "griffin_lim":
        assert load_vocoder(again.vocoder_of(tmp_path / "again"), tiny.MEL)(mels).isfinite().all()
    assert mels.shape == (2, tiny.MEL.n_mel, tiny.FRAMES)

    (tmp_path / "before").mkdir()
    pipeline.write(tmp_path / "before")
    for file in ("unet.safetensors", "vae/vae.safetensors", "text_encoder/model.safetensors"):
        before, again = (
            load_tensors(tmp_path / "before" / file),
            load_tensors(tmp_path / "again" / file),
        )
        assert before.keys() == again.keys()
        for key, value in before.items():
            assert torch.equal(value, again[key]), key
    if found.vocoder is not None:
        weights = found.vocoder.state_dict()
        assert all(torch.equal(v, weights[k]) for k, v in vocoder.state_dict().items())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model_index.json", {"defaults": 3}, "defaults must be an object"),
        (
            "model_index.json",
            {"defaults": {"frames": "many"}},
            "frames: must be a valid integer",
        ),
        ("model_index.json", {"defaults": {"guidance_scale": 0.5}}, "guidance_scale: 0.5 must be"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type"),
        ("unet/config.json", {"attention_head_dim": "8"}, "num_heads.*'8'"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor 0 must be above 0"),
        ("vae/mel_config.json", {"n_mel": None}, "n_mel: must be a valid integer"),
        ("vocoder/config.json", {"upsample_rates": None}, "describes no HiFi-GAN"),
    ],
)
def test_a_damaged_export_is_named(exported, tmp_path, name, change, message):
    _, root = exported
    folder = shutil.copytree(root / "plain", tmp_path / "copy")
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, **change}))
    config = tiny.load(Path("egs/tta/audioldm/exp_config.json"))
    with pytest.raises(UserError, match=message):
        read_diffusers([folder], PipelineSettings.of(config), layout=None).check()


def test_a_folder_of_an_export_is_whole_or_absent(exported, tmp_path, monkeypatch):
    ours, _ = exported
    monkeypatch.setattr("models.tta.convert.to_diffusers.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(*ours["plain"], "# card", tmp_path / "out")
    assert not list(tmp_path.iterdir())
