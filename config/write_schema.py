"""Writes schema.json, by which editors check configs: python -m config.write_schema

A config file is one of a chain, so that nothing is required in it. Descriptions are the comments of
the files here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import TypeAdapter

from config.load import NOT_SETTINGS, merge
from config.schema import EXPERIMENTS

FOLDER = Path(__file__).parent


def file_schema() -> dict:
    """The JSON schema of a file that may hold any of the keys of any model."""
    schema: dict = {}
    for cls in EXPERIMENTS.values():
        whole = TypeAdapter(cls).json_schema()
        merge(schema, _plain(whole, whole.get("$defs", {})), {}, "")
    keys = schema["properties"]
    keys["model_type"] = {"enum": [*EXPERIMENTS]}
    keys.update({name: {"type": "string"} for name in NOT_SETTINGS})
    for path, text in comments().items():
        place = schema
        for name in path:
            place = place["properties"][name]
        place["description"] = text
    return schema


def _plain(node: object, definitions: dict) -> object:
    """A schema with what it refers to in place, and without titles and required keys."""
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _plain(definitions[node["$ref"].rpartition("/")[2]], definitions)
    left_out = ("$defs", "title", "required", "description")
    return {name: _plain(item, definitions) for name, item in node.items() if name not in left_out}


def comments() -> dict[tuple[str, ...], str]:
    """What config/*.json say of each key: after it, or above it or the keys right before it."""
    found: dict[tuple[str, ...], str] = {}
    for model in ("base", *map(str.lower, EXPERIMENTS)):
        path, above, commented = [], [], False
        for line in (FOLDER / f"{model}.json").read_text(encoding="utf-8").splitlines():
            key = re.match(r'( +)"(\w+)":[^/]*(?:// (.*))?', line)
            comment = re.match(r" +// (.*)", line)
            if comment:
                above = [*above, comment[1]] if commented else [comment[1]]
            elif key:
                path[len(key[1]) // 2 - 1 :] = [key[2]]
                if line.endswith("{") and not commented:
                    above = []
                if text := key[3] or " ".join(above):
                    found[tuple(path)] = text
            else:
                above = []
            commented = bool(comment)
    return found


if __name__ == "__main__":
    text = json.dumps(file_schema(), indent=1, ensure_ascii=False)
    (FOLDER / "schema.json").write_text(text + "\n", encoding="utf-8")
