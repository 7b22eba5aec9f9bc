"""Files, their chain, and the overrides of a command line."""

import json5
import pytest

from config.load import (
    _parsed,
    find_config,
    load_config,
    merge,
    parse_value,
    read_chain,
    read_json5,
)
from config.typed_json import ConfigError
from tests import tiny


def test_nearest_wins_objects_merge_lists_replace():
    merged, origins = {}, {}
    merge(merged, {"a": {"b": 1, "c": [1, 2]}, "d": 1}, origins, "far")
    merge(merged, {"a": {"c": [3]}, "d": {"e": 2}}, origins, "near")
    assert merged == {"a": {"b": 1, "c": [3]}, "d": {"e": 2}}
    assert origins == {("a",): "far", ("a", "c"): "near", ("d",): "near"}


def test_a_chain_of_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.json").write_text('{"a": 1, "b": {"c": 1}}')
    (tmp_path / "sub" / "near.json").write_text(
        '\ufeff// after a byte order mark\n{"base_config": "../base.json", "b": {"d": 2},'
        '"$schema": "any"}',
        encoding="utf-8",
    )
    merged, origins = read_chain(tmp_path / "sub" / "near.json")
    assert merged == {"a": 1, "b": {"c": 1, "d": 2}}
    assert origins["b", "d"].endswith("near.json")
    assert origins["a",].endswith("base.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("3", r"must hold an object {...}, not int"),
        ('{"base_config": 3}', "base_config must be a path, not 3"),
        ('{"base_config": "gone.json"}', r"gone\.json: no such config file \(base_config of"),
        ('{"base_config": "x.json"}', "base_config leads back to a file that it came from"),
        ('{"base_config": "a\\u0000b"}', "no such config file"),
    ],
)
def test_files_that_are_no_config(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_chain(tmp_path / "x.json")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, // one\n "b": [1.5, -2e-3, true, null], /* two\n * three */ "c": "x"}',
        r'{"a": "http://x/*y*/", "b": "a \" // b", "c": "\\"} // "d"',
        "{a: 'it', \"b\": 0x1F, 'c//d': [+1, .5,],}",
        """{'a"': 1, "b": "'//'"}""",
        """{"a": 1, 'b /*': 2, "c": "*/"}""",
        '{"a": 1} // b\u2028',
        '{"a": 1} // b\r',
        '{"a": "b\\\nc"}',
        '{"a": 1, "a": 2}',
        '{"a": [NaN, Infinity]}',
        '{"a": 1/**/2}',
        '{"a": "b // c}',
        '{"a": 1} /* b',
    ],
)
def test_comments_quotes_and_commas_are_those_of_json5(tmp_path, text):
    (tmp_path / "x.json").write_text(text, newline="")
    try:
        expected = json5.loads(text)
    except ValueError:
        assert parse_value(text) == text
        with pytest.raises(ConfigError, match="not valid JSON"):
            read_json5(tmp_path / "x.json")
    else:
        for found in (read_json5(tmp_path / "x.json"), parse_value(text)):
            assert repr(found) == repr(expected)  # NaN is not itself


def test_shipped_configs_are_read_without_the_slow_parser(monkeypatch):
    files = [*tiny.ROOT.glob("config/*.json"), *tiny.ROOT.glob("egs/tta/*/*.json")]
    expected = {path: json5.loads(path.read_text(encoding="utf-8")) for path in files[:3]}
    monkeypatch.setattr("json5.loads", lambda *_: 1 / 0)
    assert len(files) > 20
    for path in files:
        found = _parsed(path.read_text(encoding="utf-8"))
        assert found == expected.get(path, found)


def test_a_file_that_is_no_text_or_none_at_all(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        read_chain(tmp_path / "x.json")
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("1e-4", 1e-4),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('"2"', "2"),
        ("/data/my sounds", "/data/my sounds"),
        ("a=b", "a=b"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_values_of_overrides(text, value):
    assert parse_value(text) == value


def test_overrides_come_last_and_are_named(tmp_path):
    path = tiny.write_config(tmp_path, 1)
    changed = load_config(path, ["train.max_steps=9", "dataset=A,B", "log_dir=my runs"])
    assert (changed.train.max_steps, changed.dataset) == (9, ["A", "B"])
    assert changed.log_dir == "my runs"
    for override, message in [
        ("train.max_step=9", "the command line: train.max_step: no such key; nearest: train.max_"),
        ("max_steps=9", "the command line: max_steps: no such key; nearest: train.max_steps"),
        ("train.max_steps=0", "the command line: train.max_steps: 0 must be >= 1"),
        ("train.batch_size=-4", "train.batch_size: -4 must be >= 1"),
        ("train.adam.lr=0", "train.adam.lr: 0 must be > 0"),
        ("train=3", "the command line: train: must be an object, not 3"),
        ("nonsense", "'nonsense' is neither an option nor an override key.path=value"),
        ("=3", "'=3' is neither an option nor an override key.path=value"),
        ("dataset=../x", "the command line: dataset '../x' must be a plain folder name"),
        ("dataset=A,A", "the command line: dataset ['A', 'A'] must name each data set once"),
        ("preprocess.segment_frames=17", "preprocess.segment_frames 17 must be a multiple of 2"),
        ("preprocess.fmax=9000", "the command line: preprocess: fmax 9000 and fmin 0 must satisfy"),
        ("model_type=AudioLMD", "model_type: 'AudioLMD' must be one of AutoencoderKL, AudioLDM"),
        ("model_type=[]", "model_type: [] must be one of AutoencoderKL, AudioLDM"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(path, [override])
        assert message in str(caught.value)


def test_a_key_of_text_gets_the_text_whatever_json_would_make_of_it(tmp_path):
    path = tiny.write_config(tmp_path, 2)
    overrides = ["log_dir=20261125", "dataset=2026", "model.autoencoder_path=1e5"]
    overrides += ["preprocess.processed_dir=null", "model.text_encoder.pretrained=null"]
    changed = load_config(path, [*overrides, "inference.demo_prompts=3", "train.max_steps=7"])
    assert (changed.log_dir, changed.dataset) == ("20261125", ["2026"])
    assert changed.model.autoencoder_path == "1e5"
    assert changed.preprocess.processed_dir == "null"
    assert changed.model.text_encoder.pretrained is None  # which that key may be
    assert (changed.inference.demo_prompts, changed.train.max_steps) == (["3"], 7)


def test_a_comma_parts_data_sets_and_no_prompts(tmp_path):
    path, key = tiny.write_config(tmp_path, 2), "inference.demo_prompts"
    assert load_config(path, [f"{key}=Rain, then wind"]).inference.demo_prompts == [
        "Rain, then wind"
    ]
    both = load_config(path, [f'{key}=["Rain, then wind", "A dog"]']).inference.demo_prompts
    assert both == ["Rain, then wind", "A dog"]
    with pytest.raises(ConfigError, match=r"demo_prompts: \[\] must have at least 1 item"):
        load_config(path, [f"{key}=[]"])


def test_a_key_that_is_given_twice_is_refused_and_both_values_are_named(tmp_path):
    path = tiny.write_config(tmp_path, 1)
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["dataset=A", "train.max_steps=3", "dataset=B"])
    said = str(caught.value)
    assert "the command line: dataset: given twice, as 'A' and 'B'" in said
    listed = said.split("'")[-2]
    assert load_config(path, [listed]).dataset == ["A", "B"]  # the form that it shows


def test_a_home_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tiny.write_config(tmp_path, 2)
    places = ("preprocess.processed_dir=~/data", "log_dir=~/runs", "train.init_from=~/ldm")
    more = ("model.autoencoder_path=~/vae", "dataset_path.Tiny=~/sounds")
    config = load_config(f"~/{path.name}", [*places, *more])
    assert config.preprocess.processed_dir == f"{tmp_path}/data"
    assert (config.log_dir, config.train.init_from) == (f"{tmp_path}/runs", f"{tmp_path}/ldm")
    assert config.model.autoencoder_path == f"{tmp_path}/vae"
    assert config.dataset_path == {"Tiny": f"{tmp_path}/sounds"}


def test_a_config_is_looked_for_where_the_user_is_and_then_here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    tiny.write_config(tmp_path / "there", 1)
    tiny.write_config(tmp_path / "here", 2)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("ARION_CALLER_DIR", str(tmp_path / "there"))
    assert load_config("stage1.json").log_dir == f"{tmp_path}/there/runs"
    assert load_config("stage2.json").log_dir == f"{tmp_path}/here/runs"
    tiny.write_config(tmp_path / "here", 1)
    assert load_config("stage1.json").log_dir == f"{tmp_path}/there/runs"
    assert find_config("stage1.json") == tmp_path / "there" / "stage1.json"
    monkeypatch.delenv("ARION_CALLER_DIR")
    assert load_config("stage1.json").log_dir == f"{tmp_path}/here/runs"
