import ast
import dataclasses
import itertools
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.load import config_from_dict, load_config
from config.schema import EXPERIMENTS, Config, MelConfig
from config.typed_json import ConfigError, keys_of
from tests import tiny

SHIPPED = sorted((tiny.ROOT / "egs").rglob("*.json"))
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([0, -1, 10**400, "", "\0", "../x", float("nan"), float("inf")]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def tiny_dict(tmp_path_factory) -> dict:
    return tiny.load(tiny.write_config(tmp_path_factory.mktemp("config"), 2)).to_dict()


def leaves(data: dict, path: tuple = ()) -> list[tuple]:
    found = []
    for name, value in data.items():
        found.append((*path, name))
        if isinstance(value, dict):
            found += leaves(value, (*path, name))
    return found


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(tiny.ROOT)))
def test_every_shipped_config_is_valid_and_comes_back_from_json(path):
    config = load_config(path)
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_there_are_shipped_configs_for_both_stages_of_each_latent():
    stage_1 = {path.name for path in SHIPPED if path.parent.name == "autoencoderkl"}
    stage_1.remove("exp_config_small_decoder.json")  # which goes on with another's latents
    stage_2 = {path.name for path in SHIPPED if path.parent.name == "audioldm"}
    # Learning from sounds alone is for the latents of exp_config_audioldm_vae.json, too; adapters
    # and flow maps are for those of what they are made of.
    made_of = ("exp_config_clap", "exp_config_lora", "exp_config_distil")
    assert stage_1 == {name for name in stage_2 if not name.startswith(made_of)}
    assert "exp_config.json" in stage_1
    for name in stage_1:
        vae = load_config(tiny.ROOT / "egs/tta/autoencoderkl" / name)
        ldm = load_config(tiny.ROOT / "egs/tta/audioldm" / name)
        size = (ldm.preprocess.n_mel, ldm.preprocess.segment_frames)
        assert list(vae.model.autoencoderkl.latent_shape(*size)) == ldm.model.latent
        assert vae.preprocess.mel == ldm.preprocess.mel
        assert vae.log_dir == ldm.log_dir  # stage 2 finds the newest stage-1 run there


@pytest.mark.parametrize(
    ("editor", "base"),
    [
        ("audit/exp_config.json", "audioldm/exp_config.json"),
        ("audit/exp_config_small.json", "audioldm/exp_config_small.json"),
        ("quickstart/audit.json", "quickstart/audioldm.json"),
    ],
)
def test_an_editor_fits_the_model_that_it_starts_from(editor, base):
    editor, base = (load_config(tiny.ROOT / "egs/tta" / name) for name in (editor, base))
    assert editor.model.audioldm.in_channels == 2 * base.model.audioldm.in_channels
    own = {"in_channels": base.model.latent[0], "input_skip": False}
    unet = dataclasses.replace(editor.model.audioldm, **own)
    assert unet == base.model.audioldm
    for name in ("latent", "noise_scheduler", "text_encoder"):
        assert getattr(editor.model, name) == getattr(base.model, name)
    assert editor.preprocess == base.preprocess
    assert editor.log_dir == base.log_dir  # it finds the newest stage-2 run there


def test_config_of_the_mission_has_the_stated_numbers():
    vae = load_config(tiny.ROOT / "egs/tta/autoencoderkl/exp_config.json")
    assert vae.preprocess.mel == MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
    assert vae.preprocess.segment_frames == 624
    assert vae.model.autoencoderkl.ch_mult == [1, 2, 2, 4]
    other = load_config(tiny.ROOT / "egs/tta/autoencoderkl/exp_config_latent_4_5_39.json")
    assert other.model.autoencoderkl.ch_mult == [1, 1, 2, 2, 4]


def test_every_key_is_read_somewhere():
    """A key that nothing reads is a setting that a user believes in.

    An attribute of that name is all that is looked for, so that a common name proves little.
    """
    folders = ("bins", "models", "modules", "preprocessors", "processors")
    files = [path for folder in folders for path in (tiny.ROOT / folder).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    keys = {path for cls in EXPERIMENTS.values() for path in keys_of(cls)}
    unread = {path for path in keys if path[-1] not in read}
    # Some go to a library with all those beside them, and some have one value.
    passed_on = {path for path in unread if {"noise_scheduler", "hifigan"} & {*path}}
    assert unread - passed_on <= {("model", "autoencoderkl", "double_z")}


def test_every_key_has_its_default_in_a_documented_file():
    for name in ("base", *map(str.lower, EXPERIMENTS)):
        lines = (tiny.ROOT / "config" / f"{name}.json").read_text().splitlines()
        for before, line in itertools.pairwise(lines):
            if re.match(r'    "\w+": [^{]', line) and "//" not in line:
                assert re.search(r'//|^    "', before), f"{name}.json: {line}"


def test_settings_that_do_not_go_together(tmp_path):
    stage_1, stage_2, stage_4 = (tiny.write_config(tmp_path, stage) for stage in (1, 2, 4))
    (tmp_path / "started").mkdir()
    vae, ldm = (tiny.write_config(tmp_path / "started", n, init_from="there") for n in (1, 2))
    lora = 'lora={"rank": 2, "alpha": 1, "target": "all"}'
    (tmp_path / "adapters").mkdir()
    of_text = {"rank": 2, "alpha": 1, "target": "all", "text_encoder": True}
    adapters = tiny.write_config(tmp_path / "adapters", 2, init_from="there", lora=of_text)
    for path, override, message in [
        (stage_1, "train.gradient_accumulation_steps=3", "3 must divide batch_size 4"),
        (stage_1, "model.caption_dropout=0.1", "a key of model_type AudioLDM, not of Autoencoder"),
        (stage_1, "inference.num_steps=3", "a key of model_type AudioLDM, not of AutoencoderKL"),
        (stage_1, "model_type=AudioLDM", "a key of model_type AutoencoderKL, not of AudioLDM"),
        (stage_2, "model.audioldm=null", "model.audioldm: must be an object, not None"),
        (stage_1, "train.gradient_checkpointing=true", "is for model_type AudioLDM"),
        (vae, f"train.{lora}", "train.lora is for model_type AudioLDM and AUDIT: set it to null"),
        (stage_2, f"train.{lora}", "train: init_from null must name the model whose adapters"),
        (ldm, f"train.{lora.replace('2', '0')}", "train.lora.rank: 0 must be >= 1"),
        (
            ldm,
            f"train.{lora.replace('rank', 'ranc')}",
            "ranc: no such key; nearest: train.lora.rank",
        ),
        (
            ldm,
            f"train.{lora.replace('all', 'none')}",
            "target: 'none' must be 'attention' or 'all'",
        ),
        (
            adapters,
            'model={"conditioner": "clap", "text_encoder": {"pretrained": "clap"},'
            ' "audioldm": {"context_dim": null, "class_embed_dim": 16}}',
            "train.lora.text_encoder true must be false where model.conditioner is 'clap'",
        ),
        (stage_1, "model.autoencoderkl.ch=40", "ch: must be a multiple of 16, not 40"),
        (stage_1, "model.autoencoderkl.ch_mult=[]", "ch_mult: [] must have at least 1 item"),
        (stage_1, "model.autoencoderkl.in_channels=2", "2 must be 1: a mel has one channel"),
        (stage_1, "model.autoencoderkl.out_ch=2", "2 must be 1: a mel has one channel"),
        (stage_1, "model.autoencoderkl.double_z=false", "False must be True: the encoder gives"),
        (stage_1, "model.loss.disc_channels=12", "disc_channels: must be a multiple of 8, not 12"),
        (stage_1, "train.adam.betas=[0.9]", "betas: [0.9] must have at least 2 item"),
        (stage_2, "model.noise_scheduler.clip_sample=true", "a latent has no bounds"),
        (stage_2, "model.noise_scheduler.skip_prk_steps=false", "pndm starts without Runge-Kutta"),
        (stage_2, "model.noise_scheduler.steps_offset=0", "0 must be 1: samplers lay their steps"),
        (stage_2, "model.noise_scheduler.beta_start=0.5", "beta_start 0.5 must not exceed"),
        (stage_2, "model.audioldm.context_dim=32", "d_model 16 and audioldm.context_dim 32"),
        (stage_2, "model.audioldm.num_heads=3", "num_heads 3 must divide model_channels"),
        (stage_2, "model.audioldm.attention_resolutions=[4]", "4 must be one of [1, 2]"),
        (stage_2, "inference=null", "inference: must be an object, not None"),
        (stage_2, "inference.guidance_scale=0.5", "inference.guidance_scale: 0.5 must be >= 1"),
        (stage_2, "inference.num_steps=0", "inference.num_steps: 0 must be >= 1"),
        (stage_2, "inference.num_steps=1001", "inference.num_steps 1001 must be at most 1000"),
        (stage_2, "model.audioldm.out_channels=8", "must be 2 and 2: 1 latent(s) in"),
        (stage_2, "model.audioldm.in_channels=4", "audioldm.in_channels 4 and audioldm.out_chan"),
        (stage_2, "model.source_dropout=0.1", "source_dropout: a key of model_type AUDIT, not of"),
        (
            stage_2,
            "model.audioldm.input_skip=true",
            "input_skip true is for model_type AUDIT",
        ),
        (stage_4, "model.audioldm.in_channels=2", "must be 4 and 2: 2 latent(s) in and one out"),
        (stage_4, "model.source_dropout=1.5", "model.source_dropout: 1.5 must be <= 1"),
        (stage_4, "inference.source_guidance=-1", "source_guidance: -1 must be >= 0"),
        (stage_2, "model.latent=[2, 8]", "model.latent: [2, 8] must have at least 3 it"),
        (stage_2, "model.latent=[2, 4, 8]", "preprocess.segment_frames 16, both divided by the"),
        (stage_2, "preprocess.segment_frames=32", "VAE's downsampling: [8, 16] where that is 2"),
        (stage_2, "model.latent=[2, 32, 32]", "model.latent [2, 32, 32] must be [z, height, wid"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(path, [override])
        assert message in str(caught.value), override


def test_stage_2_has_to_say_which_latent_it_is_for(tiny_dict):
    data = json.loads(json.dumps(tiny_dict))
    del data["model"]["latent"]
    with pytest.raises(ConfigError, match=r"config: model\.latent: missing"):
        config_from_dict(data)


def test_a_mel_has_a_fingerprint_of_every_setting():
    mel = MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
    changes = {"sample_rate": 22050, "n_fft": 2048, "win_size": 800, "hop_size": 160}
    changes |= {"n_mel": 64, "fmin": 20.0, "fmax": 7600.0}
    assert changes.keys() == MelConfig.__dataclass_fields__.keys()
    others = [dataclasses.replace(mel, **{name: value}) for name, value in changes.items()]
    assert len({mel.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1
    assert mel.differences(dataclasses.replace(mel, n_mel=64)) == ["n_mel 80 and 64"]


@settings(deadline=None, max_examples=300)
@given(choice=st.integers(0, 10_000), value=JSON)
def test_any_value_of_any_key_gives_a_config_or_an_error_that_names_it(tiny_dict, choice, value):
    data = json.loads(json.dumps(tiny_dict))
    paths = leaves(data)
    path = paths[choice % len(paths)]
    *parents, name = path
    place = data
    for parent in parents:
        place = place[parent]
    place[name] = value
    config, fault = config_or_fault(data)
    if config is None:
        assert any(part in fault for part in path)
    else:
        assert config_from_dict(config.to_dict()) == config


def config_or_fault(data: dict) -> tuple[Config | None, str]:
    try:
        return config_from_dict(data), ""
    except ConfigError as error:
        return None, str(error)


@QUICK
@given(override=st.text(max_size=20) | st.text(max_size=10).map("train.adam.{}=1".format))
def test_any_override_gives_a_config_or_an_error(tmp_path, override):
    path = tmp_path / "stage1.json"
    if not path.exists():
        tiny.write_config(tmp_path, 1)
    with pytest.raises(ConfigError):
        load_config(path, [override])
