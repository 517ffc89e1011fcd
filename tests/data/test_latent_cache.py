"""Latents belong to the clips, the encoder's weights, class and code that made them."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from vdm.data.latent_cache import LatentCache, LatentDataset, build_latent_cache, weight_hash
from vdm.utils.config import configurable
from vdm.utils.video_io import from_uint8


@configurable
class Encoder(nn.Module):
    """Keeps the width, so that mirrored latents are seen to be mirrored."""

    def __init__(self, dim=2, gain=1.0):
        super().__init__()
        self.mix = nn.Conv3d(3, dim, (1, 2, 1), (1, 2, 1))
        self.drop = nn.Dropout()
        self.gain = gain
        self.encoded = 0

    def encode(self, video):
        self.encoded += len(video)
        return self.gain * self.drop(self.mix(video))


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    return Encoder()


@pytest.fixture
def source(make_clips):
    class Sloped(make_clips):
        def clip(self, index):
            frames, caption = super().clip(index)
            return frames + np.arange(6, dtype=np.uint8)[:, None], f"{caption} left"

    return Sloped()


def mirror(caption):
    return None if caption.startswith("clip 4 ") else caption.replace("left", "right")


def build(source, encoder, root, **kwargs):
    return build_latent_cache(source, encoder, root, progress=False, **kwargs)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float16", 1e-3)])
def test_latents_are_those_of_the_encoder_in_eval_mode(source, encoder, tmp_path, dtype, error):
    data = LatentDataset(build(source, encoder, tmp_path, dtype=dtype))
    assert encoder.training  # put back as it was
    encoder.eval()
    assert len(data) == 11
    for index in (0, 10):
        frames, caption = source.clip(index)
        expected = encoder.encode(from_uint8(torch.from_numpy(frames))[None])[0].detach()
        assert data[index]["latents"].dtype == torch.float32
        torch.testing.assert_close(data[index]["latents"], expected, atol=error, rtol=error)
        assert data[index]["caption"] == caption
        assert data[index]["index"] == index


def test_second_build_encodes_only_the_probe(source, encoder, tmp_path):
    build(source, encoder, tmp_path)
    encoder.encoded = 0
    build(source, encoder, tmp_path)
    assert encoder.encoded == 1


def test_any_difference_is_another_cache(source, make_clips, encoder, tmp_path):
    torch.manual_seed(2)
    other_weights = Encoder()
    same_weights = Encoder(gain=2.0)
    same_weights.load_state_dict(encoder.state_dict())
    keys = [
        build(source, encoder, tmp_path).key,
        build(source, encoder, tmp_path, dtype="float32").key,
        build(source, encoder, tmp_path, mirror=mirror).key,
        build(make_clips(), encoder, tmp_path).key,
        build(source, other_weights, tmp_path).key,
        build(source, same_weights, tmp_path).key,
    ]
    assert len(set(keys)) == len(keys)


def test_encoder_whose_code_changed_is_a_miss(source, encoder, tmp_path):
    before = build(source, encoder, tmp_path)
    old = before.latents[3].copy()
    encoder.gain = 3.0  # not in the key: the arguments and the weights are as they were
    after = build(source, encoder, tmp_path)
    assert after.key == before.key
    np.testing.assert_allclose(after.latents[3], 3 * old, rtol=1e-2)


def test_mirrored_clips_follow_with_mirrored_captions(source, encoder, tmp_path):
    cache = build(source, encoder, tmp_path, mirror=mirror, dtype="float32")
    assert len(cache) == 11 + 10
    clips = [index for _, index in cache.store.notes]
    assert clips[11:] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]  # clip 4 must not be mirrored
    assert cache.captions[11] == "clip 0 right"
    np.testing.assert_allclose(cache.latents[11], cache.latents[0][..., ::-1], atol=1e-5)
    assert not np.allclose(cache.latents[11], cache.latents[0], atol=1e-5)


def test_weight_hash_sees_every_value_name_and_type(encoder):
    before = weight_hash(encoder)
    assert weight_hash(encoder) == before
    with torch.no_grad():
        encoder.mix.bias[1] += 1e-7
    assert weight_hash(encoder) != before
    assert weight_hash(encoder.double()) != before


def test_later_passes_have_other_words(source, encoder, tmp_path):
    cache = build(source, encoder, tmp_path)
    data = LatentDataset(cache, lambda caption, index, epoch: f"{index} in pass {epoch}")
    assert data[11 * 2 + 4]["caption"] == "4 in pass 2"
    assert torch.equal(data[11 * 2 + 4]["latents"], data[4]["latents"])


def test_pickles_as_a_path(source, encoder, tmp_path):
    cache = build(source, encoder, tmp_path)
    assert len(pickle.dumps(cache)) < 2000
    assert np.array_equal(pickle.loads(pickle.dumps(cache)).latents, cache.latents)
    with pytest.raises(ValueError, match="not a whole store"):
        LatentCache(tmp_path)
