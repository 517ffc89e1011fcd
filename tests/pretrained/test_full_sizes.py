"""Published parts in full size, without weights: parameters, keys and shapes are those published.

Counts are of the published files; those of persistent tables of positions, which are computed here,
are told apart.
"""

import pytest
import torch

from tests.pretrained import full_models
from tests.pretrained.full_models import on_meta
from vdm.conditioning.clip import build_clip
from vdm.pretrained.diffusers_unet import entries, tables
from vdm.pretrained.diffusers_unet_config import unet_from_config
from vdm.pretrained.diffusers_vae import vae_entries, vae_from_config
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.original_svd import VIT_H
from vdm.pretrained.original_text import VIT_H_PENULTIMATE

MID, NO_MID = {}, {"use_motion_mid_block": False}
WORDS = {"cross_attention_dim": 768}
MOTION_NETWORK = full_models.diffusers.UNetMotionModel


def settings(theirs):
    return {**theirs.config, "_class_name": type(theirs).__name__}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(state):
    """Of everything but tables of positions."""
    computed = set(tables(state))
    return {key: tuple(value.shape) for key, value in state.items() if key not in computed}


@pytest.mark.parametrize(
    ("case", "num_parameters", "num_keys"),
    [
        (full_models.SVD, 1_524_623_082, 1428),
        (full_models.MODELSCOPE, 1_411_233_860, 1480),
        (full_models.SD15, 859_520_964, 686),
        ((MOTION_NETWORK, WORDS | MID), 1_312_730_244, 1253),
        ((MOTION_NETWORK, WORDS | NO_MID), 1_276_658_564, 1226),
    ],
    ids=["svd", "modelscope and zeroscope", "sd15", "motion with a middle", "motion without"],
)
def test_networks(case, num_parameters, num_keys):
    theirs = on_meta(case)
    with torch.device("meta"):
        ours, family = unet_from_config(settings(theirs))
        found = to_foreign(ours.state_dict(), entries(ours, family))
    assert len(theirs.state_dict()) == num_keys
    assert shapes(found) == shapes(theirs.state_dict())
    assert count(ours) == num_parameters


@pytest.mark.parametrize(
    ("changes", "num_parameters", "num_keys"),
    [
        (NO_MID | {"motion_max_seq_length": 24}, 417_137_600, 540),
        (MID, 453_209_280, 567),
        (NO_MID, 417_137_600, 540),
    ],
    ids=["v1", "v2", "v3"],
)
def test_motion_adapters(changes, num_parameters, num_keys):
    image, adapter = on_meta(full_models.SD15), on_meta((full_models.MOTION[0], changes))
    with torch.device("meta"):
        ours, family = unet_from_config(settings(image), motion=settings(adapter))
        found = to_foreign(ours.state_dict(), entries(ours, family))
    both = image.state_dict() | adapter.state_dict()
    assert len(adapter.state_dict()) == num_keys
    assert shapes(found) == shapes(both)
    assert count(ours) - count(image) == num_parameters


@pytest.mark.parametrize(
    ("case", "num_parameters", "num_keys"),
    [(full_models.VAE, 83_653_863, 248), (full_models.TEMPORAL_VAE, 97_742_847, 374)],
    ids=["image", "temporal"],
)
def test_autoencoders(case, num_parameters, num_keys):
    theirs = on_meta(case)
    with torch.device("meta"):
        ours = vae_from_config(settings(theirs))
        found = to_foreign(ours.state_dict(), vae_entries(ours))
    assert shapes(found) == shapes(theirs.state_dict())
    assert len(found) == num_keys
    assert count(ours) == num_parameters


@pytest.mark.parametrize(
    ("kind", "config", "num_parameters", "num_keys"),
    [
        ("CLIPVisionModelWithProjection", VIT_H, 632_076_800, 520),
        ("CLIPTextModel", full_models.VIT_L, 123_060_480, 196),
        ("CLIPTextModel", VIT_H_PENULTIMATE, 340_387_840, 372),
    ],
    ids=["ViT-H images", "ViT-L words", "ViT-H words"],
)
def test_towers(kind, config, num_parameters, num_keys):
    with torch.device("meta"):
        tower = build_clip(kind, config)
    assert count(tower) == num_parameters
    assert len(tower.state_dict()) == num_keys
