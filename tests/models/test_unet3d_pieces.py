"""Published networks give the same with gradients, all at once, as without, piece by piece."""

import pytest
import torch

from tests.models.unet3d_oracles import relative_error
from vdm.autoencoder.image_vae import ImageVAE
from vdm.layers import pieces
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d_blocks import Heads
from vdm.types import Conditioning

B, T, DIM = 2, 3, 12
TINY = presets.Size(Heads(dim=4), DIM, (8, 16), 1, (1, 0, 1), 4, 2, 8)
NUMBERS = {name: torch.tensor([6.0, 9.0]) for name in ("fps", "motion_bucket", "noise_aug")}
IMAGE = {"image": torch.ones(B, 1, DIM), "given": torch.ones(B, 4, T, 12, 11), **NUMBERS}
TEXT = {"text": torch.ones(B, 5, DIM)}
NETWORKS = {
    "Stable Video Diffusion": (presets.stable_video_diffusion, IMAGE),
    "ModelScope": (presets.modelscope, TEXT),
    "AnimateDiff": (presets.animatediff, TEXT),
    "LaVie": (presets.lavie, TEXT),
    "LaVie interpolation": (
        presets.lavie_interpolation,
        TEXT | {"given": torch.ones(B, 4, T, 12, 11)},
    ),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    for name in ("PIECE", "MIN_TOKENS", "PIECE_OF_VOLUME", "MIN_PIXELS"):
        monkeypatch.setattr(pieces, name, 40)


def drawn(module):
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        torch.nn.init.normal_(parameter, std=fan_in**-0.5)
    return module.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_the_same_piece_by_piece(name):
    make, fields = NETWORKS[name]
    network = drawn(make(TINY))
    cond = Conditioning(**{key: torch.randn_like(value) for key, value in fields.items()})
    x, level = torch.randn(B, 4, T, 12, 11), torch.tensor([1.6, 0.3])
    kept = x.clone(), cond.map(torch.clone)
    whole = network(x, level, cond)
    with torch.no_grad():
        found = network(x, level, cond)
    assert relative_error(found, whole.detach()) < 1e-5
    assert torch.equal(x, kept[0])
    assert all(torch.equal(v, cond.present()[k]) for k, v in kept[1].present().items())


@pytest.mark.parametrize("is_temporal", [False, True])
def test_autoencoders_give_the_same_piece_by_piece(is_temporal):
    vae = drawn(ImageVAE(4, (8, 16), 1, 4, is_temporal=is_temporal))
    latents, video = torch.randn(B, 4, T, 6, 5), torch.rand(B, 3, T, 12, 10)
    kept = latents.clone(), video.clone()
    whole = vae.decode(latents), vae.encode(video)
    with torch.no_grad():
        found = vae.decode(latents), vae.encode(video)
    for one, other in zip(found, whole, strict=True):
        assert relative_error(one, other.detach()) < 1e-5
    assert torch.equal(latents, kept[0])
    assert torch.equal(video, kept[1])
