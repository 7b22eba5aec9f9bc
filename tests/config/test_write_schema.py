"""The JSON schema by which editors check configs."""

import json

import json5
import pytest

from config.schema import EXPERIMENTS
from config.typed_json import keys_of
from config.write_schema import file_schema
from tests.config.test_schema import SHIPPED
from tests.tiny import ROOT

FILES = [*SHIPPED, *(ROOT / "config" / f"{n}.json" for n in ("base", *map(str.lower, EXPERIMENTS)))]
SCHEMA = json.loads((ROOT / "config/schema.json").read_text(encoding="utf-8"))
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def faults(schema: dict, value: object, place: str = "") -> list[str]:
    """What a validator of JSON schemas would say of a value, for what our schema uses."""
    if "anyOf" in schema:
        tried = [faults(one, value, place) for one in schema["anyOf"]]
        return [] if [] in tried else tried[0]
    wrong_type = "type" in schema and (
        not isinstance(value, TYPES[schema["type"]])
        or (isinstance(value, bool) and schema["type"] != "boolean")
    )
    if wrong_type or value not in schema.get("enum", [value]):
        return [f"{place}: {value!r}"]
    found = []
    if isinstance(value, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, item in value.items():
            inner = known.get(name, more)
            if inner is False:
                found.append(f"{place}.{name}: unknown")
            elif inner is not True:
                found += faults(inner, item, f"{place}.{name}")
    elif isinstance(value, list):
        for item in value:
            found += faults(schema.get("items", {}), item, place)
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 999):
            found.append(f"{place}: {len(value)} items")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        inside = (
            schema.get("minimum", value) <= value <= schema.get("maximum", value)
            and schema.get("exclusiveMinimum", value - 1) < value
            and value < schema.get("exclusiveMaximum", value + 1)
        )
        found += [] if inside else [f"{place}: {value}"]
    return found


def test_the_file_is_what_the_types_give():
    assert file_schema() == SCHEMA, "run: python -m config.write_schema"


def test_every_key_of_every_model_is_in_it_and_most_are_described():
    described = 0
    for cls in EXPERIMENTS.values():
        for path in keys_of(cls):
            place = SCHEMA
            for name in path:
                kinds = place.get("anyOf", [place])  # an object, or null
                place = next(kind for kind in kinds if "properties" in kind)["properties"][name]
            described += "description" in place
    assert described > 60
    assert "required" not in json.dumps(SCHEMA)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_shipped_file_names_it_and_fits_it(path):
    data = json5.loads(path.read_text(encoding="utf-8"))
    assert (path.parent / data["$schema"]).resolve() == ROOT / "config/schema.json"
    assert faults(SCHEMA, data) == []


@pytest.mark.parametrize(
    "data",
    [
        {"train": {"max_step": 3}},
        {"train": {"max_steps": 0}},
        {"train": {"adam": {"lr": 0}}},
        {"train": {"ema_decay": 1}},
        {"train": {"compile": 1}},
        {"train": {"valid_clips": "all"}},
        {"train": {"lr_schedule": "sine"}},
        {"model_type": "AudioLMD"},
        {"model": {"latent": [4, 10]}},
        {"dataset": "AudioCaps"},
        {"dataset_path": {"AudioCaps": 3}},
    ],
)
def test_an_editor_sees_what_is_wrong(data):
    assert len(faults(SCHEMA, data)) == 1
