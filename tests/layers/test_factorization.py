import pytest
import torch

from vdm.layers.attention import Attention, QKNorm
from vdm.layers.factorization import FirstAndPrevious, Joint, Spatial, Temporal
from vdm.layers.positions import RelativeBias, axial_rope
from vdm.utils.config import build, describe

B, T, H, W, DIM, HEADS = 2, 6, 3, 4, 24, 2
CAUSAL = [
    Joint(True),
    Joint(True, 2),
    Temporal(True),
    Temporal(True, 3),
    Spatial(),
    FirstAndPrevious(),
]
ALL = [*CAUSAL, Joint(), Joint(window=2), Temporal(), Temporal(window=3)]


@pytest.fixture
def attention():
    return Attention(DIM, HEADS, qk_norm=QKNorm()).double()


def video(t=T, h=H, w=W):
    return torch.randn(B, t, h, w, DIM, dtype=torch.float64)


def table(t=T, h=H, w=W, offset=0):
    return axial_rope((t, h, w), (4, 4, 4), frame_offset=offset)


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_unfold_inverts_fold(rule):
    x = video()
    assert torch.equal(rule.unfold(rule.fold(x), x), x)


def test_joint_equals_spatial_for_one_frame(attention):
    x = video(t=1)
    torch.testing.assert_close(
        Joint()(x, attention, table(t=1)), Spatial()(x, attention, table(t=1))
    )


@pytest.mark.parametrize(("is_causal", "window"), [(False, None), (True, None), (True, 2)])
def test_joint_equals_temporal_for_one_place(attention, is_causal, window):
    x, rope = video(h=1, w=1), table(h=1, w=1)
    joint, temporal = (kind(is_causal, window)(x, attention, rope) for kind in (Joint, Temporal))
    torch.testing.assert_close(joint, temporal)


def test_spatial_attention_keeps_frames_apart(attention):
    x = video()
    alone = torch.cat([Joint()(x[:, k : k + 1], attention, table(t=1)) for k in range(T)], dim=1)
    torch.testing.assert_close(Spatial()(x, attention, table()), alone, rtol=0, atol=1e-6)


def test_temporal_attention_keeps_places_apart(attention):
    x = video()
    out = Temporal()(x, attention, table())
    alone = Joint()(x[:, :, 1:2, 2:3], attention, table(h=1, w=1))
    torch.testing.assert_close(out[:, :, 1:2, 2:3], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", CAUSAL, ids=str)
def test_no_frame_sees_the_future(attention, rule):
    x = video().requires_grad_()
    out = rule(x, attention, table())
    for k in range(T):
        (grad,) = torch.autograd.grad(out[:, k].sum(), x, retain_graph=True)
        assert not grad[:, k + 1 :].any()
        assert grad[:, k].any()
        if rule.window is not None:
            assert not grad[:, : max(0, k - rule.window + 1)].any()


def test_the_first_frame_and_the_one_before_are_all_that_is_seen(attention):
    x, positions = video(), Joint().rope(table())
    q, kv = (
        make(x.flatten(1, 3), positions) for make in (attention.queries, attention.keys_values)
    )
    frames = torch.arange(T).repeat_interleave(H * W)
    age = frames[:, None] - frames
    for k in range(T):  # the first two frames have the first one twice: it counts as once
        sees = (age[frames == k] == 1) | (frames == 0) if k else frames[None] == 0
        weights = (q[:, :, frames == k] @ kv.keys.mT / (DIM // HEADS) ** 0.5).masked_fill(
            ~sees, -torch.inf
        )
        alone = attention.output(weights.softmax(-1) @ kv.values)
        out = FirstAndPrevious()(x, attention, table())[:, k].flatten(1, 2)
        torch.testing.assert_close(out, alone, rtol=0, atol=1e-6)


@pytest.fixture
def bias():
    bias = RelativeBias(HEADS).double()
    bias.embed.weight.data *= 3
    return bias


@pytest.mark.parametrize("rule", [Joint(), Temporal(), Temporal(window=3), Joint(True)], ids=str)
def test_distances_of_frames_are_added_to_the_scores(attention, bias, rule):
    x = video(h=1, w=1)
    q, kv = attention.queries(rule.fold(x)), attention.keys_values(rule.fold(x))
    frames = torch.arange(T)
    scores = q @ kv.keys.mT / (DIM // HEADS) ** 0.5 + bias(frames, frames)
    mask = rule.mask(T, T, x)
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    expected = rule.unfold(attention.output(scores.softmax(-1) @ kv.values), x)
    torch.testing.assert_close(rule(x, attention, bias=bias), expected)


@pytest.mark.parametrize("rule", [Joint(True), Temporal(True), Temporal(True, 3)], ids=str)
def test_distances_count_in_a_stream_too(attention, bias, rule):
    x, cache, parts = video(), None, []
    for chunk in x.split([2, 1, 3], dim=1):
        part, cache = rule.step(chunk, attention, cache=cache, bias=bias)
        parts.append(part)
    whole = rule(x, attention, bias=bias)
    assert not torch.allclose(whole, rule(x, attention), atol=1e-3)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-6)


def test_two_frames_know_no_distances(attention, bias):
    with pytest.raises(ValueError, match="got a bias for distances between frames"):
        FirstAndPrevious()(video(), attention, bias=bias)


@pytest.mark.parametrize("rule", [Joint(), Temporal()], ids=str)
def test_without_a_mask_every_frame_sees_every_frame(attention, rule):
    x = video().requires_grad_()
    (grad,) = torch.autograd.grad(rule(x, attention, table())[:, 2].sum(), x)
    assert grad.abs().amax(dim=(0, 2, 3, 4)).min() > 0


@pytest.mark.parametrize("rule", CAUSAL, ids=str)
@pytest.mark.parametrize("chunks", [(1,) * T, (2, 1, 3), (T,)], ids=str)
def test_chunk_by_chunk_equals_the_masked_pass(attention, rule, chunks):
    x, start, cache, parts = video(), 0, None, []
    for size in chunks:
        rope = table(t=size, offset=start)
        part, cache = rule.step(x[:, start : start + size], attention, rope, cache)
        parts.append(part)
        start += size
    whole = rule(x, attention, table())
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", [Joint(True, 3), Temporal(True, 3)], ids=str)
def test_a_window_bounds_the_cache(attention, rule):
    cache, sizes = None, []
    for start in range(12):
        _, cache = rule.step(video(t=1), attention, table(t=1, offset=start), cache)
        sizes.append(cache.keys.untyped_storage().nbytes())
    assert sizes[0] < sizes[1]
    assert len(set(sizes[1:])) == 1


def test_a_cache_is_not_changed_by_the_next_step(attention):
    rule = Temporal(True)
    _, cache = rule.step(video(t=2), attention, table(t=2))
    before = cache.keys.clone()
    _, after = rule.step(video(t=1), attention, table(t=1, offset=2), cache)
    assert torch.equal(cache.keys, before)
    assert after.keys.shape[2] == 3


@pytest.mark.parametrize("rule", [Joint(), Temporal(window=2)], ids=str)
def test_a_rule_that_sees_the_future_has_no_steps(attention, rule):
    with pytest.raises(ValueError, match="expected a factorization with is_causal=True"):
        rule.step(video(), attention)


@pytest.mark.parametrize("kind", [Joint, Temporal])
def test_a_window_of_no_frame_is_refused(kind):
    with pytest.raises(ValueError, match="got window=0, expected at least 1"):
        kind(True, 0)


def test_positions_are_optional(attention):
    x = video()
    torch.testing.assert_close(
        Joint()(x.flip(2), attention).flip(2), Joint()(x, attention), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_rules_are_written_down_and_built_again(rule):
    assert build(describe(rule)) == rule
