import dataclasses
from typing import Annotated, Literal

import pytest
from pydantic import Field

from config.typed_json import ConfigError, Place, Texts, build, fixed, typed


@typed
class Inner:
    rate: Annotated[float, Field(gt=0, lt=1)]
    kind: Literal["a", "b"]


@typed
class Outer:
    inner: Inner
    names: Texts
    paths: dict[str, Place]
    steps: Annotated[int, Field(ge=1, le=10)]
    flag: bool = True
    maybe: int | None = None
    one: Annotated[int, fixed(1, "there is one")] = 1

    def __post_init__(self) -> None:
        if self.steps == 7:
            raise ValueError("steps 7 is unlucky")


GOOD = {"inner": {"rate": 0.5, "kind": "a"}, "names": ["x"], "paths": {"x": "y"}, "steps": 3}


def outer(**changes):
    return build(Outer, {**GOOD, **changes}, "far.json", {("steps",): "near.json"})


def test_values_become_what_the_types_say():
    assert outer() == Outer(Inner(0.5, "a"), ["x"], {"x": "y"}, 3)
    assert outer(maybe=4).maybe == 4
    assert outer(names="rain, then wind").names == ["rain, then wind"]


def test_whole_numbers_are_taken_for_others():
    @typed
    class Point:
        x: float

    (value,) = dataclasses.astuple(build(Point, {"x": 3}, "f"))
    assert (value, type(value)) == (3.0, float)


def test_a_tilde_is_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    paths = {"a": "~/sounds", "b": "/x/~y", "c": "~"}
    assert outer(paths=paths).paths == {"a": "/home/me/sounds", "b": "/x/~y", "c": "/home/me"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 1}, "far.json: stepz: no such key; nearest: steps"),
        ({"rate": 1}, "far.json: rate: no such key; nearest: inner.rate"),
        ({"inner": {"rate": 0.5, "kinds": "a"}}, "inner.kinds: no such key; nearest: inner.kind"),
        ({"inner": {"rate": 0.5}}, "far.json: inner.kind: missing, and there is no default"),
        ({"inner": 3}, "far.json: inner: must be an object, not 3"),
        ({"inner": {"rate": 1, "kind": "a"}}, "inner.rate: 1 must be < 1"),
        ({"inner": {"rate": 0, "kind": "a"}}, "inner.rate: 0 must be > 0"),
        ({"inner": {"rate": float("nan"), "kind": "a"}}, "rate: must be a finite number, not nan"),
        ({"inner": {"rate": float("inf"), "kind": "a"}}, "rate: must be a finite number, not inf"),
        ({"inner": {"rate": "0.5", "kind": "a"}}, "rate: must be a valid number, not '0.5'"),
        ({"inner": {"rate": True, "kind": "a"}}, "inner.rate: must be a valid number, not True"),
        ({"inner": {"rate": 10**400, "kind": "a"}}, "rate: must be a finite number, not 1000"),
        ({"inner": {"rate": 0.5, "kind": "c"}}, "inner.kind: 'c' must be 'a' or 'b'"),
        ({"steps": 0}, "near.json: steps: 0 must be >= 1"),
        ({"steps": 11}, "near.json: steps: 11 must be <= 10"),
        ({"steps": 2.0}, "near.json: steps: must be a valid integer, not 2.0"),
        ({"steps": True}, "near.json: steps: must be a valid integer, not True"),
        ({"steps": None}, "near.json: steps: must be a valid integer, not None"),
        ({"steps": 7}, "near.json: steps 7 is unlucky"),
        ({"flag": 1}, "far.json: flag: must be a valid boolean, not 1"),
        ({"flag": "true"}, "far.json: flag: must be a valid boolean, not 'true'"),
        ({"one": 2}, "far.json: one: 2 must be 1: there is one"),
        ({"names": {}}, "far.json: names: must be a valid array, not {}"),
        ({"names": ["a", 1]}, "far.json: names.1: must be a valid string, not 1"),
        ({"names": ["a\0"]}, "far.json: names.0: 'a\\x00' must be text in UTF-8 without NUL"),
        ({"names": ["\ud800"]}, "far.json: names.0: '\ufffd\ufffd\ufffd' must be text in UTF-8"),
        ({"paths": {"a": 1}}, "far.json: paths.a: must be a valid string, not 1"),
        ({"paths": []}, "far.json: paths: must be an object, not []"),
    ],
)
def test_errors_name_file_key_and_rule(changes, message):
    with pytest.raises(ConfigError) as caught:
        outer(**changes)
    assert message in str(caught.value)


def test_several_faults_are_a_line_each():
    with pytest.raises(ConfigError) as caught:
        outer(steps=0, names=3, x=1)
    assert str(caught.value).splitlines() == [
        "far.json: names: must be a valid array, not 3",
        "near.json: steps: 0 must be >= 1",
        "far.json: x: no such key; nearest: inner",
    ]
    with pytest.raises(ConfigError, match=r"(?s)^(far.json: [^\n]+\n){5}and 15 more$"):
        outer(**{f"x{number}": 1 for number in range(20)})


def test_those_made_by_code_are_checked_as_well():
    with pytest.raises(ConfigError, match=r"^steps: 0 must be >= 1$"):
        dataclasses.replace(outer(), steps=0)
    with pytest.raises(ConfigError, match="steps 7 is unlucky"):
        dataclasses.replace(outer(), steps=7)
    with pytest.raises(ConfigError, match=r"^rate: missing, .*; kind: 'c' must be 'a' or 'b'$"):
        Inner(kind="c")
    with pytest.raises(dataclasses.FrozenInstanceError):
        outer().steps = 4


def test_a_key_that_no_file_is_known_of_came_with_the_object_that_it_is_in():
    data = {**GOOD, "inner": {"rate": 0.5, "kind": "a", "kinds": 1}}
    with pytest.raises(ConfigError, match=r"^near: inner\.kinds: no such key; nearest: inner\.ki"):
        build(Outer, data, "far", {("inner",): "near"})
    with pytest.raises(ConfigError, match=r"^own: inner\.kinds: no such key; nearest: inner\.ki"):
        build(Outer, data, "far", {("inner",): "near", ("inner", "kinds"): "own"})
