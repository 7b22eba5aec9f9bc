from dataclasses import dataclass

import pytest

from config.typed_json import ConfigError, Origins, build, key, merge, parse_value, read_chain


@dataclass(frozen=True)
class Inner:
    rate: float = key(above=0, below=1)
    kind: str = key(choices=("a", "b"))


@dataclass(frozen=True)
class Outer:
    inner: Inner
    names: list[str]
    paths: dict[str, str]
    steps: int = key(low=1, high=10)
    maybe: int | None = None

    def __post_init__(self) -> None:
        if self.steps == 7:
            raise ConfigError("steps 7 is unlucky")


GOOD = {"inner": {"rate": 0.5, "kind": "a"}, "names": ["x"], "paths": {"x": "y"}, "steps": 3}


def outer(**changes):
    return build(Outer, {**GOOD, **changes}, (), Origins({("steps",): "near.json"}, "far.json"))


def test_values_become_what_the_hints_say():
    assert outer() == Outer(Inner(0.5, "a"), ["x"], {"x": "y"}, 3, None)
    assert outer(maybe=4).maybe == 4
    assert outer(names="x,y").names == ["x", "y"]  # dataset=ESC10,AudioCaps on a command line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 1}, "far.json: stepz: no such key; nearest: steps"),
        ({"inner": {"rate": 0.5, "kinds": "a"}}, "inner.kinds: no such key; nearest: inner.kind"),
        ({"inner": {"rate": 0.5}}, "far.json: inner.kind: missing, and there is no default"),
        ({"inner": 3}, "far.json: inner: must be an object {...}, not 3"),
        ({"inner": {"rate": 1, "kind": "a"}}, "inner.rate: 1.0 must be < 1"),
        ({"inner": {"rate": 0, "kind": "a"}}, "inner.rate: 0.0 must be > 0"),
        ({"inner": {"rate": float("nan"), "kind": "a"}}, "inner.rate: must be finite, not nan"),
        ({"inner": {"rate": "0.5", "kind": "a"}}, "inner.rate: must be of type float, not '0.5'"),
        ({"inner": {"rate": 10**400, "kind": "a"}}, "inner.rate: must be finite"),
        ({"inner": {"rate": 0.5, "kind": "c"}}, "inner.kind: 'c' must be one of 'a', 'b'"),
        ({"steps": 0}, "near.json: steps: 0 must be >= 1"),
        ({"steps": 11}, "near.json: steps: 11 must be <= 10"),
        ({"steps": 2.0}, "near.json: steps: must be of type int, not 2.0"),
        ({"steps": True}, "near.json: steps: must be of type int, not True"),
        ({"steps": None}, "near.json: steps: must be of type int, not None"),
        ({"steps": 7}, "far.json: config: steps 7 is unlucky"),
        ({"names": {}}, "far.json: names: must be a list, not {}"),
        ({"names": ["a", 1]}, "far.json: names: must be of type str, not 1"),
        ({"names": ["a\0"]}, "far.json: names: 'a\\x00' must be text in UTF-8 without NUL"),
        ({"names": ["\ud800"]}, "far.json: names: '\\ud800' must be text in UTF-8 without NUL"),
        ({"paths": {"a": 1}}, "far.json: paths.a: must be of type str, not 1"),
        ({"paths": []}, "far.json: paths: must be an object {...}, not []"),
    ],
)
def test_errors_name_file_key_and_rule(changes, message):
    with pytest.raises(ConfigError) as caught:
        outer(**changes)
    assert message in str(caught.value)


def test_nearest_wins_objects_merge_lists_replace():
    merged, origins = {}, {}
    merge(merged, {"a": {"b": 1, "c": [1, 2]}, "d": 1}, origins, "far")
    merge(merged, {"a": {"c": [3]}, "d": {"e": 2}}, origins, "near")
    assert merged == {"a": {"b": 1, "c": [3]}, "d": {"e": 2}}
    assert Origins(origins, "x")(("a", "b")) == "far"
    assert Origins(origins, "x")(("a", "c")) == "near"


def test_a_chain_of_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.json").write_text('{"a": 1, "b": {"c": 1}}')
    (tmp_path / "sub" / "near.json").write_text(
        '\ufeff// after a byte order mark\n{"base_config": "../base.json", "b": {"d": 2},}',
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


def test_a_file_that_is_no_text_or_none_at_all(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        read_chain(tmp_path / "x.json")
    with pytest.raises(ConfigError, match="no such config file"):
        read_chain(tmp_path)
    with pytest.raises(ConfigError, match="no such config file"):
        read_chain(tmp_path / "gone.json")


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
