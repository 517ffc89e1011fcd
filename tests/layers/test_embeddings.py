import pytest
import torch

from vdm.layers.embeddings import (
    LabelEmbedding,
    NoiseLevelEmbedding,
    PictureEmbedding,
    join_given,
    num_input_channels,
    patchify,
    sinusoid,
    unpatchify,
)
from vdm.types import Conditioning


@pytest.mark.parametrize("cos_first", [True, False])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_sinusoid_agrees_with_diffusers(cos_first, shift):
    from diffusers.models.embeddings import get_timestep_embedding

    values = torch.tensor([0.0, 1.5, 250.0, 999.0])
    theirs = get_timestep_embedding(
        values, 12, flip_sin_to_cos=cos_first, downscale_freq_shift=shift
    )
    torch.testing.assert_close(sinusoid(values, 12, cos_first, shift), theirs)


def test_a_shorter_period_turns_faster():
    slow, fast = (sinusoid(torch.tensor([5.0]), 8, max_period=p) for p in (10_000, 100))
    assert (slow[0, 1:4] > fast[0, 1:4]).all()


def test_sinusoid_of_odd_width_is_refused():
    with pytest.raises(ValueError, match=r"got dim=7, expected an even number, e\.g\. 8"):
        sinusoid(torch.zeros(2), 7)


def test_numbers_are_embedded_one_by_one():
    embed = NoiseLevelEmbedding(6, sinusoid_dim=8, cos_first=False, shift=1.0, hidden=10)
    values = 1000 * torch.rand(2, 5)
    out = embed(values)
    assert out.shape == (2, 5, 6)
    torch.testing.assert_close(out[1], embed(values[1]))
    waves = sinusoid(values, 8, cos_first=False, shift=1.0)
    torch.testing.assert_close(out, embed.fc2(torch.nn.functional.silu(embed.fc1(waves))))


def test_a_half_precision_embedding_takes_full_precision_numbers():
    embed = NoiseLevelEmbedding(6, sinusoid_dim=8).bfloat16()
    assert embed(torch.tensor([999.0])).dtype == torch.bfloat16


def test_one_more_label_says_nothing():
    embed = LabelEmbedding(3, 5)
    assert embed.null == 3
    assert embed(torch.tensor([0, embed.null])).shape == (2, 5)


def test_tokens_of_pictures_have_places_if_these_are_learned():
    embed = PictureEmbedding(6, 8, num_tokens=5)
    torch.nn.init.normal_(embed.table)
    states = torch.randn(2, 1, 6).expand(-1, 5, -1)
    tokens = embed(states)
    assert tokens.shape == (2, 5, 8)
    assert not torch.allclose(tokens[:, 0], tokens[:, 1])
    with pytest.raises(ValueError, match="got 4 tokens of pictures, expected 5"):
        embed(states[:, :4])
    anywhere = PictureEmbedding(6, 8)(states)
    assert torch.equal(anywhere[:, 0], anywhere[:, 1])


def test_a_mask_may_tell_the_frames_of_a_latent_apart():
    x, given = torch.randn(2, 2, 3, 2, 4, 5)
    masks = torch.ones(2, 4, 2, 4, 5)
    cond = Conditioning(given=given, given_mask=masks)
    joined = join_given(x, cond, "frame_masks")
    assert torch.equal(joined, torch.cat((x, given, masks), dim=1))
    assert joined.shape[1] == num_input_channels(3, "frame_masks")
    empty = join_given(x, Conditioning(), "frame_masks")
    assert torch.equal(empty[:, :3], x)
    assert empty.shape == joined.shape
    assert not empty[:, 3:].any()


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
@pytest.mark.parametrize("patch_size", [(1, 2, 3), (5, 1, 2), (1, 1, 1)])
def test_unpatchify_inverts_patchify(order, patch_size):
    x = torch.randn(2, 3, 5, 4, 6)
    tokens = patchify(x, patch_size, order)
    pt, ph, pw = patch_size
    assert tokens.shape == (2, 5 // pt, 4 // ph, 6 // pw, 3 * pt * ph * pw)
    assert torch.equal(unpatchify(tokens, patch_size, order), x)


def test_orders_list_channels_outermost_or_innermost():
    x = torch.randn(2, 3, 5, 4, 6)
    first = patchify(x, (1, 2, 2), "channels_first")[0, 1, 0, 0]
    last = patchify(x, (1, 2, 2), "channels_last")[0, 1, 0, 0]
    assert torch.equal(first, x[0, :, 1, :2, :2].flatten())
    assert torch.equal(last, x[0, :, 1, :2, :2].movedim(0, -1).flatten())


def test_patches_that_do_not_tile_are_refused():
    with pytest.raises(ValueError, match=r"got height=5, expected a multiple of 2, e\.g\. 6"):
        patchify(torch.randn(1, 3, 4, 5, 6), (1, 2, 2))
