"""How close VideoCrafter is to diffusers' parts and to its authors' loop, written down plainly."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from torchvision.transforms.functional import to_pil_image, to_tensor

import vdm
from tests.pretrained.parity_common import B, image_vae_pairs, quietly
from tests.pretrained.tiny_videocrafter import TinyVideoCrafter, tiny_sizes
from vdm.types import Conditioning
from vdm.utils.rng import SampleNoise

T, STEPS = 3, 2
SIZE = (7, 10)  # of latents; those of frames are even
PROMPTS, NEGATIVE, SEEDS = ["a cat", "dogs run"], "rain", [11, 5]
REFERENCE = "diffusers' parts"
SYSTEMS = {
    "VideoCrafter2": partial(TinyVideoCrafter, "videocrafter2"),
    "VideoCrafter1 text-to-video": partial(TinyVideoCrafter, "videocrafter1_1024"),
    "VideoCrafter1 image-to-video": partial(TinyVideoCrafter, "videocrafter1_image"),
}


def pairs(system):
    """What both make, part by part.

    Args:
        system: One of ``SYSTEMS``.
    """
    theirs = SYSTEMS[system]()
    with tempfile.TemporaryDirectory() as folder, tiny_sizes():
        path = Path(folder) / "model.ckpt"
        torch.save({"state_dict": theirs.state()}, path)
        ours = vdm.load(path)
    torch.manual_seed(1)
    return {
        "network": [_network(ours, theirs, SIZE)],
        "autoencoder": image_vae_pairs(ours, theirs, T),
        "frames": [_frames(ours, theirs)],
    }


def _network(ours, theirs, size):
    x, steps = torch.randn(B, 4, T, *size), torch.tensor([981.0, 41.0])
    told = {"text": torch.randn(B, 5, 16), "fps": torch.tensor([8.0, 28.0])}
    told |= {"image": torch.randn(B, 4, 16)} if theirs.has_picture else {}
    return ours.network(x, steps, Conditioning(**told)), theirs.network(x, steps, **told)


def _frames(ours, theirs):
    """Of whole clips, guidance on, from the same noise."""
    noise = torch.randn(B, 4, T, 6, 10)
    told = {"num_frames": T, "height": 12, "width": 20, "steps": STEPS, "guidance_scale": 3.0}
    rates, given = {"fps": 16.0}, None
    if theirs.has_picture:
        given = [to_pil_image(picture) for picture in torch.rand(B, 3, 30, 50)]
        rates["pictures"] = torch.stack([2 * to_tensor(picture) - 1 for picture in given])
    more = {"image": given, "seed": SEEDS, "noise": noise, "fps": 16}
    clip = quietly(ours, PROMPTS, negative_prompt=NEGATIVE, **told, **more)
    draw, negative = SampleNoise(SEEDS), [NEGATIVE] * B
    return clip.frames, theirs(PROMPTS, negative, noise, draw, STEPS, 3.0, **rates)
