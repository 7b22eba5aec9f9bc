"""The published U-Nets at full size: every weight has a place, and the settings are understood."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from models.tta.convert.from_diffusers import unet_config
from models.tta.ldm.unet import UNet
from tests.models.tta.convert.published_configs import TANGO, audioldm

PUBLISHED = {
    "audioldm-s-full-v2": (audioldm(128), 185_036_552),
    "audioldm-m-full": (audioldm(192), 415_954_568),
    "audioldm-l-full": (audioldm(256), 739_139_080),
    "tango": (TANGO, 865_933_768),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_shapes(name):
    settings, parameters = PUBLISHED[name]
    with torch.device("meta"):
        theirs = UNet2DConditionModel.from_config(settings)
        ours = UNet(unet_config(settings, theirs.state_dict(), Path(name)))
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert shapes == {key: value.shape for key, value in theirs.state_dict().items()}
    assert sum(p.numel() for p in ours.parameters()) == parameters
