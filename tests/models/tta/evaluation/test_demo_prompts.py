from types import SimpleNamespace

from models.tta.evaluation import demo
from tests.sounds import make_config, noise

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
