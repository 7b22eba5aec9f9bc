import dataclasses
import itertools
import json
import re
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import model_schema as config_module
from config.load import config_from_dict, load_config
from config.schema import Config, ConfigError, MelConfig
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
    stage_2 = {path.name for path in SHIPPED if path.parent.name == "audioldm"}
    assert stage_1 == stage_2
    assert "exp_config.json" in stage_1
    for name in stage_1:
        vae = load_config(tiny.ROOT / "egs/tta/autoencoderkl" / name)
        ldm = load_config(tiny.ROOT / "egs/tta/audioldm" / name)
        assert vae.model.autoencoderkl.z_channels == ldm.model.audioldm.in_channels
        assert vae.preprocess.mel == ldm.preprocess.mel
        assert vae.log_dir == ldm.log_dir  # stage 2 finds the newest stage-1 run there


def test_config_of_the_mission_has_the_stated_numbers():
    vae = load_config(tiny.ROOT / "egs/tta/autoencoderkl/exp_config.json")
    assert vae.preprocess.mel == MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
    assert vae.preprocess.segment_frames == 624
    assert vae.model.autoencoderkl.ch_mult == [1, 2, 2, 4]
    other = load_config(tiny.ROOT / "egs/tta/autoencoderkl/exp_config_latent_4_5_39.json")
    assert other.model.autoencoderkl.ch_mult == [1, 1, 2, 2, 4]


def declared_keys(cls: type) -> set[str]:
    names = set()
    for field in dataclasses.fields(cls):
        names.add(field.name)
        hint = typing.get_type_hints(cls)[field.name]
        for inner in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(inner):
                names |= declared_keys(inner)
    return names


def test_every_key_is_used_by_the_code():
    """A key that nothing reads is a setting that a user believes in."""
    folders = ("bins", "models", "modules", "preprocessors", "processors", "utils")
    files = [path for folder in folders for path in (tiny.ROOT / folder).rglob("*.py")]
    code = "".join(p.read_text() for p in files if not p.name.startswith("config"))
    scheduler = {field.name for field in dataclasses.fields(config_module.NoiseSchedulerConfig)}
    unused = {
        name
        for name in declared_keys(Config) - scheduler  # which goes to diffusers as it is
        if not re.search(rf"\.{name}\b|\"{name}\"", code)
    }
    # Ranges of train.json's names and of double_z are all there is to them.
    assert unused <= {"train_file", "valid_file", "test_file", "double_z"}


def test_every_key_has_its_default_in_a_documented_file():
    for name in ("base", "autoencoderkl", "audioldm"):
        lines = (tiny.ROOT / "config" / f"{name}.json").read_text().splitlines()
        for before, line in itertools.pairwise(lines):
            if re.match(r'    "\w+": [^{]', line) and "//" not in line:
                assert re.search(r'//|^    "', before), f"{name}.json: {line}"


def test_overrides_come_last_and_are_named(tmp_path):
    path = tiny.write_config(tmp_path, 1)
    changed = load_config(path, ["train.max_steps=9", "dataset=A,B", "log_dir=my runs"])
    assert (changed.train.max_steps, changed.dataset) == (9, ["A", "B"])
    assert changed.log_dir == "my runs"
    for override, message in [
        ("train.max_step=9", "the command line: train.max_step: no such key; nearest: train.max_"),
        ("train.max_steps=0", "the command line: train.max_steps: 0 must be >= 1"),
        ("train.batch_size=-4", "train.batch_size: -4 must be >= 1"),
        ("train.adam.lr=0", "train.adam.lr: 0.0 must be > 0"),
        ("train=3", "train: must be an object"),
        ("nonsense", "'nonsense' is neither an option nor an override key.path=value"),
        ("=3", "'=3' is neither an option nor an override key.path=value"),
        ("dataset=../x", "dataset '../x' must be a plain folder name"),
        ("preprocess.segment_frames=17", "preprocess.segment_frames 17 must be a multiple of 2"),
        ("preprocess.fmax=9000", "fmax <= sample_rate / 2"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(path, [override])
        assert message in str(caught.value)


def test_settings_that_do_not_go_together(tmp_path):
    stage_1, stage_2 = tiny.write_config(tmp_path, 1), tiny.write_config(tmp_path, 2)
    for path, override, message in [
        (stage_1, "train.gradient_accumulation_steps=3", "3 must divide batch_size 4"),
        (stage_1, "model.caption_dropout=0.1", "caption_dropout does not belong in a config of"),
        (stage_1, "model_type=AudioLDM", "autoencoderkl does not belong in a config of model_ty"),
        (stage_2, "model.audioldm=null", "audioldm is needed by a config of model_type AudioLDM"),
        (stage_1, "train.gradient_checkpointing=true", "is for model_type AudioLDM"),
        (stage_1, "model.autoencoderkl.ch=40", "ch 40 must be a multiple of 32"),
        (stage_2, "model.audioldm.context_dim=32", "d_model 16 and model.audioldm.context_dim 32"),
        (stage_2, "model.audioldm.num_heads=3", "num_heads 3 must divide model_channels"),
        (stage_2, "model.audioldm.attention_resolutions=[4]", "4 must be one of [1, 2]"),
        (stage_2, "inference=null", "inference is needed by a config of model_type AudioLDM"),
        (stage_2, "inference.guidance_scale=0.5", "inference.guidance_scale: 0.5 must be >= 1"),
        (stage_2, "inference.num_steps=0", "inference.num_steps: 0 must be >= 1"),
        (stage_2, "inference.num_steps=1001", "inference.num_steps 1001 must be at most 1000"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(path, [override])
        assert message in str(caught.value)


def test_a_mel_has_a_fingerprint_of_every_setting():
    mel = MelConfig(16000, 1024, 1024, 256, 80, 0.0, 8000.0)
    changes = {"sample_rate": 22050, "n_fft": 2048, "win_size": 800, "hop_size": 160}
    changes |= {"n_mel": 64, "fmin": 20.0, "fmax": 7600.0}
    assert changes.keys() == MelConfig.__dataclass_fields__.keys()
    others = [dataclasses.replace(mel, **{name: value}) for name, value in changes.items()]
    assert len({mel.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1
    assert mel.differences(dataclasses.replace(mel, n_mel=64)) == ["n_mel 80 and 64"]


@QUICK
@given(data=JSON)
def test_any_json_is_a_config_or_an_error_that_says_why(tmp_path, data):
    path = tmp_path / "any.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError):  # by chance none is whole
        load_config(path)


@QUICK
@given(content=st.binary(max_size=60))
def test_any_bytes_are_an_error_that_says_why(tmp_path, content):
    path = tmp_path / "any.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(path)


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
