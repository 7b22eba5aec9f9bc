import json
from types import SimpleNamespace

import pytest

from models.tta.evaluation import demo
from tests.sounds import make_config, noise
from utils.errors import UserError

PROMPTS = [{"prompt": f"sound {number}", "Kind": "bell"} for number in range(4)]


class Listener:
    """Takes everything loud for a bell."""

    def hear(self, mels):
        return ["bell" if mel.max() > -2 else "silence" for mel in mels]


class Settings:
    def sampling_with(self, sampler, num_steps):
        return SimpleNamespace(sampler=sampler, num_steps=num_steps)


def test_samplers_are_compared_by_what_is_recognised(tmp_path, monkeypatch):
    def generate(pipeline, vocoder, texts, settings, batch_size):
        """With more steps, more of the sounds are loud; with the second sampler, one more."""
        loud = settings.num_steps + (settings.sampler == "second")
        for number in range(len(texts)):
            yield SimpleNamespace(wav=noise(0.5) * (number < loud))

    monkeypatch.setattr(demo, "train_listener", lambda config: Listener())
    monkeypatch.setattr(demo, "generate", generate)
    pipeline, config = SimpleNamespace(settings=Settings()), make_config(tmp_path)
    rows = demo.compare_samplers(config, pipeline, None, PROMPTS, ["first", "second"], [0, 2])
    assert [[row[0], *row[2:]] for row in rows] == [[0, 0, 1], [2, 2, 3]]


def test_sounds_of_other_prompts_are_not_put_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "load_split", lambda config, split: [])
    (tmp_path / "sounds").mkdir()
    for number, text in enumerate(["sound 0", "sound 1", "sound 0", "sound 1"]):
        (tmp_path / f"sounds/{number:04d}.json").write_text(json.dumps({"text": text}))
    with pytest.raises(UserError, match=r"0002.wav is of 'sound 0', and 'sound 2' was to be made"):
        demo.page_of_sounds(make_config(tmp_path), tmp_path, PROMPTS, {})
