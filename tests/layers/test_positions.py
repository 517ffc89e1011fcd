import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from vdm.layers.positions import (
    RelativeBias,
    RotaryTable,
    apply_rope,
    axial_angles,
    axial_rope,
    axial_sincos,
    default_axes_dims,
    sincos,
    sincos_grid,
)

B, T, H, W, HEADS, D = 2, 5, 3, 4, 2, 20
AXES = (8, 4, 8)
PAIRINGS = ["interleaved", "half"]


def flat_table(pairing="interleaved", offset=0):
    table = axial_rope((T, H, W), AXES, frame_offset=offset, pairing=pairing)
    return table.rearrange("t h w p -> (t h w) p")


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_scores_depend_on_differences_of_positions_alone(pairing):
    q, k = torch.randn(2, B, T * H * W, HEADS, D).double()
    scores = []
    for offset in (0, 100):
        table = flat_table(pairing, offset)
        rotated = [apply_rope(x, table) for x in (q, k)]
        scores.append(torch.einsum("bnhd,bmhd->bhnm", *rotated))
    torch.testing.assert_close(*scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_rotation_keeps_lengths(pairing):
    x = torch.randn(B, T * H * W, HEADS, D)
    torch.testing.assert_close(apply_rope(x, flat_table(pairing)).norm(dim=-1), x.norm(dim=-1))


def test_rotation_agrees_with_diffusers():
    from diffusers.models.embeddings import apply_rotary_emb

    x = torch.randn(B, T * H * W, HEADS, D)
    for pairing, unbind in (("interleaved", -1), ("half", -2)):
        table = flat_table(pairing)
        if pairing == "interleaved":
            tables = [v.repeat_interleave(2, dim=-1) for v in (table.cos, table.sin)]
        else:
            tables = [torch.cat((v, v), dim=-1) for v in (table.cos, table.sin)]
        theirs = apply_rotary_emb(
            x.transpose(1, 2), tuple(tables), use_real_unbind_dim=unbind
        ).transpose(1, 2)
        torch.testing.assert_close(apply_rope(x, table), theirs)


def test_axial_tables_agree_with_diffusers():
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    cos, sin = get_3d_rotary_pos_embed(
        32, ((0, 0), (H, W)), (H, W), T, theta=10_000, grid_type="linspace"
    )
    table = axial_rope((T, H, W), (8, 12, 12)).rearrange("t h w p -> (t h w) p")
    torch.testing.assert_close(table.cos, cos[:, ::2], rtol=0, atol=1e-6)
    torch.testing.assert_close(table.sin, sin[:, ::2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_tokens_outside_the_table_are_left_alone(pairing):
    table = flat_table(pairing)
    text, video, more = (torch.randn(B, n, HEADS, D + 2) for n in (6, T * H * W, 3))
    out = apply_rope(torch.cat((text, video, more), dim=1), table, start=6)
    rotated = torch.cat((apply_rope(video[..., :D], table), video[..., D:]), dim=-1)
    torch.testing.assert_close(out, torch.cat((text, rotated, more), dim=1))


def test_heads_may_have_tables_of_their_own():
    angles = torch.randn(7, HEADS, D // 2)
    table = RotaryTable(angles.cos(), angles.sin())
    x = torch.randn(B, 7, HEADS, D)
    for head in range(HEADS):
        own = RotaryTable(angles[:, head].cos(), angles[:, head].sin())
        expected = apply_rope(x[:, :, head : head + 1], own)
        torch.testing.assert_close(apply_rope(x, table)[:, :, head : head + 1], expected)


def test_half_precision_is_rotated_in_float32():
    x = torch.randn(B, T * H * W, HEADS, D).bfloat16()
    out = apply_rope(x, flat_table())
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, apply_rope(x.float(), flat_table()).bfloat16())


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="got a table for 60 tokens and 20 channels, expected at"):
        apply_rope(torch.randn(B, 10, HEADS, D), flat_table())


def test_a_frame_offset_continues_the_clip():
    whole = axial_rope((T, H, W), AXES)
    rest = axial_rope((T - 2, H, W), AXES, frame_offset=2)
    assert torch.equal(whole.at(slice(2, None)).cos, rest.cos)


def test_tables_are_made_once_and_serve_training_after_inference():
    with torch.inference_mode():
        first = axial_rope((T, H, W), (2, 2, 4), theta=77.0)
    again = axial_rope((T, H, W), (2, 2, 4), theta=77.0)
    assert again.cos is first.cos
    x = torch.randn(1, T, 1, 8, requires_grad=True)
    apply_rope(x, again.at(slice(None), 0, 0)).sum().backward()
    assert x.grad is not None


def test_sincos_tables_are_made_once_and_serve_training_after_inference():
    with torch.inference_mode():
        first = axial_sincos((T, H, W), (2, 2, 4), theta=77.0, frame_offset=3)
    again = axial_sincos((T, H, W), (2, 2, 4), theta=77.0, frame_offset=3)
    assert again is first
    coordinates = [torch.arange(3.0, 3 + T), torch.arange(float(H)), torch.arange(float(W))]
    assert torch.equal(first, sincos_grid(coordinates, (2, 2, 4), 77.0))
    weight = torch.ones(8, requires_grad=True)
    (weight * again).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("make", [axial_rope, axial_sincos])
def test_tables_are_computed_on_the_cpu_and_then_moved(monkeypatch, make):
    def angles_on_the_cpu(coordinates, *arguments):
        assert all(values.device.type == "cpu" for values in coordinates)
        return axial_angles(coordinates, *arguments)

    monkeypatch.setattr("vdm.layers.positions.axial_angles", angles_on_the_cpu)
    with torch.device("meta"):
        table = make((T, H, W), (2, 4, 2), device="meta")
        assert (table.cos if make is axial_rope else table).device.type == "meta"


def test_axes_turn_channels_of_their_own():
    t, h, w = (torch.arange(n, dtype=torch.float64) for n in (T, H, W))
    angles = axial_angles([t, h, w], AXES, 100.0)
    assert angles.shape == (T, H, W, D // 2)
    torch.testing.assert_close(angles[:, 1, 2, 0], t)
    torch.testing.assert_close(angles[3, :, 2, 4], h)
    torch.testing.assert_close(angles[3, 1, :, 7], w * 100 ** (-2 / 8))


@pytest.mark.parametrize(("axes", "problem"), [((3, 4), "not 3"), ((4,), "expected 2")])
def test_axes_that_do_not_fit_are_refused(axes, problem):
    with pytest.raises(ValueError, match=problem):
        axial_angles([torch.arange(3.0), torch.arange(4.0)], axes, 100.0)


@pytest.mark.parametrize("head_dim", [6, 8, 20, 64, 128])
def test_default_axes_fill_the_head(head_dim):
    dims = default_axes_dims(head_dim)
    assert sum(dims) == head_dim
    assert all(dim > 0 and dim % 2 == 0 for dim in dims)


@pytest.mark.parametrize("head_dim", [4, 7])
def test_a_head_too_small_for_three_axes_is_refused(head_dim):
    with pytest.raises(ValueError, match="expected an even number of at least 6"):
        default_axes_dims(head_dim)


def test_sincos_agrees_with_diffusers():
    from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid

    positions = torch.tensor([0.0, 1.0, 2.5, 40.0])
    theirs = get_1d_sincos_pos_embed_from_grid(10, positions, output_type="pt")
    torch.testing.assert_close(sincos(positions, 10), theirs.float())
    torch.testing.assert_close(sincos(positions, 4, theta=100.0)[:, 1], (positions / 10).sin())


def test_sincos_grids_put_axes_side_by_side():
    t, h, w = (torch.arange(n, dtype=torch.float32) for n in (T, H, W))
    grid = sincos_grid([t, h, w], (6, 4, 8))
    assert grid.shape == (T, H, W, 18)
    torch.testing.assert_close(grid[:, 1, 2, :6], sincos(t, 6))
    torch.testing.assert_close(grid[3, :, 2, 6:10], sincos(h, 4))
    torch.testing.assert_close(grid[3, 1, :, 10:], sincos(w, 8))
    torch.testing.assert_close(sincos_grid([h, w], (4, 8)), grid[0, :, :, 6:])
    torch.testing.assert_close(sincos_grid([w], (8,)), sincos(w, 8))


def test_sincos_of_odd_width_is_refused():
    with pytest.raises(ValueError, match=r"got dim=5, expected an even number, e\.g\. 6"):
        sincos(torch.arange(3.0), 5)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 32), (32, 128), (16, 40)])
def test_buckets_of_distances_are_those_of_t5(num_buckets, max_distance):
    ages = torch.arange(200)[:, None] - torch.arange(200)[None]
    theirs = T5Attention._relative_position_bucket(-ages, True, num_buckets, max_distance)
    bias = RelativeBias(3, num_buckets, max_distance)
    assert torch.equal(bias.buckets(ages), theirs)
    assert bias(torch.arange(5), torch.arange(7)).shape == (3, 5, 7)
