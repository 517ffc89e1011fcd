import pytest
import torch

from vdm.layers import masks
from vdm.layers.attention import MIN_COPIED, Attention, DecoupledAttention, QKNorm
from vdm.layers.positions import axial_rope

B, N, M, DIM, HEADS, CONTEXT = 2, 5, 7, 24, 3, 10


def table(num_tokens, offset=0, head_dim=8, pairing="interleaved"):
    axes = (head_dim, 0, 0)
    whole = axial_rope((num_tokens, 1, 1), axes, frame_offset=offset, pairing=pairing)
    return whole.at(slice(None), 0, 0)


def test_agrees_with_torch():
    ours = Attention(DIM, HEADS)
    theirs = torch.nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    weights = [getattr(ours, f"to_{name}").weight for name in "qkv"]
    biases = [getattr(ours, f"to_{name}").bias for name in "qkv"]
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = torch.cat(weights), torch.cat(biases)
    theirs.out_proj.load_state_dict(ours.to_out.state_dict())
    x = torch.randn(B, N, DIM)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("scope", ["head", "full"])
def test_qk_norm_makes_scores_blind_to_scale(kind, scope):
    attention = Attention(DIM, HEADS, qk_norm=QKNorm(kind, scope, eps=1e-9))
    width = 8 if scope == "head" else DIM
    assert attention.norm_q.weight.shape == (width,)
    for linear in (attention.to_q, attention.to_k):
        torch.nn.init.zeros_(linear.bias)
    x = torch.randn(B, N, DIM)
    before = attention(x)
    attention.to_q.weight.data *= 7
    attention.to_k.weight.data *= 0.2
    torch.testing.assert_close(attention(x), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", ["head", "full"])
def test_queries_and_keys_are_as_narrow_as_values_in_mixed_precision(scope):
    class Wide(torch.nn.LayerNorm):
        """Answers in float32, as layer normalisation under autocast on a GPU."""

        def forward(self, input):
            return super().forward(input.float())

    attention = Attention(DIM, HEADS, qk_norm=QKNorm(scope=scope))
    width = 8 if scope == "head" else DIM
    for norm_q, norm_k in ((attention.norm_q, attention.norm_k), (Wide(width), Wide(width))):
        attention.norm_q, attention.norm_k = norm_q, norm_k
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = torch.randn(B, N, DIM)
            kv = attention.keys_values(x, table(N))
            assert attention.queries(x).dtype == torch.bfloat16
            assert kv.keys.dtype == kv.values.dtype == torch.bfloat16
        assert attention.queries(x).dtype == torch.float32


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("out_bias", [True, False])
def test_offsets_are_there_where_asked_for(qkv_bias, out_bias):
    attention = Attention(DIM, HEADS, qkv_bias=qkv_bias, out_bias=out_bias)
    have = {name for name, _ in attention.named_parameters() if name.endswith("bias")}
    asked = {"to_q.bias", "to_k.bias", "to_v.bias"} if qkv_bias else set()
    assert have == asked | ({"to_out.bias"} if out_bias else set())


def test_heads_may_be_wider_than_their_share():
    attention = Attention(DIM, HEADS, head_dim=16)
    assert attention.to_q.weight.shape == (48, DIM)
    assert attention(torch.randn(B, N, DIM)).shape == (B, N, DIM)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match=r"got num_heads=5, expected a divisor of 24, e\.g\. 4"):
        Attention(DIM, 5)


def test_padded_context_is_not_seen():
    attention = Attention(DIM, HEADS, CONTEXT, qk_norm=QKNorm())
    x, context = torch.randn(B, N, DIM), torch.randn(B, M, CONTEXT)
    valid = torch.ones(B, M)
    valid[1, 4:] = 0
    out = attention(x, context, masks.padding(valid))
    torch.testing.assert_close(out[1:], attention(x[1:], context[1:, :4]))
    torch.testing.assert_close(out[:1], attention(x[:1], context[:1]))


def test_without_positions_order_does_not_matter():
    attention = Attention(DIM, HEADS)
    x = torch.randn(B, N, DIM)
    torch.testing.assert_close(attention(x.flip(1)).flip(1), attention(x))
    rotated = attention(x, rope=table(N))
    assert not torch.allclose(attention(x.flip(1), rope=table(N)).flip(1), rotated)


@pytest.mark.parametrize("pairing", ["interleaved", "half"])
def test_tokens_before_the_positions_are_not_rotated(pairing):
    attention = Attention(DIM, HEADS, qk_norm=QKNorm("rms"))
    text, video = torch.randn(B, M, DIM), torch.randn(B, N, DIM)
    joined, rope = torch.cat((text, video), dim=1), table(N, pairing=pairing)
    q = attention.queries(joined, rope, rope_start=M)
    assert torch.equal(q[:, :, :M], attention.queries(text))
    torch.testing.assert_close(q[:, :, M:], attention.queries(video, rope))
    first = attention(joined, rope=rope, rope_start=M)
    last = attention(torch.cat((video, text), dim=1), rope=rope)
    torch.testing.assert_close(first[:, M:], last[:, :N])


def test_positions_mean_nothing_for_cross_attention():
    attention = Attention(DIM, HEADS)
    x = torch.randn(B, N, DIM)
    with pytest.raises(ValueError, match="got rotary positions for cross-attention"):
        attention(x, x, rope=table(N))


def test_cached_equals_masked():
    attention = Attention(DIM, HEADS, qk_norm=QKNorm()).double()
    x = torch.randn(B, N, DIM).double()
    whole = attention(x, mask=masks.causal(N), rope=table(N))
    cache, parts = None, []
    for start, stop in ((0, 2), (2, 3), (3, N)):
        new = stop - start
        mask = masks.causal(stop)[start:]
        part, cache = attention.step(x[:, start:stop], cache, mask, table(new, offset=start))
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)
    assert cache.num_bytes == 2 * B * N * DIM * 8


@pytest.mark.parametrize("backend", ["plain", "sdpa"])
def test_deterministic_in_eval(backend):
    attention = Attention(DIM, HEADS, backend=backend).eval()
    x = torch.randn(B, N, DIM)
    assert torch.equal(attention(x), attention(x))


@torch.no_grad()
def test_a_picture_beside_the_words_has_keys_and_values_of_its_own():
    both = DecoupledAttention(DIM, HEADS, CONTEXT, qk_norm=QKNorm())
    torch.nn.init.normal_(both.norm_k_image.weight)
    words, other = (Attention(DIM, HEADS, CONTEXT, qk_norm=QKNorm()) for _ in range(2))
    state = both.state_dict()
    words.load_state_dict({k: v for k, v in state.items() if "image" not in k})
    shared = {k: v for k, v in words.state_dict().items() if "_k" not in k and "_v" not in k}
    own = {k.replace("_image", ""): v for k, v in state.items() if "image" in k}
    other.load_state_dict(shared | own)
    for attention in (words, other):
        attention.to_out = torch.nn.Identity()
    x, text, image = torch.randn(B, N, DIM), torch.randn(B, M, CONTEXT), torch.randn(B, 4, CONTEXT)
    mask = masks.padding(torch.tensor([[1.0] * M, [1.0] * 3 + [0.0] * (M - 3)]))
    expected = both.to_out(words(x, text, mask) + other(x, image))
    torch.testing.assert_close(both(x, text, mask, image), expected)
    with pytest.raises(ValueError, match="got no tokens of a picture"):
        both(x, text, mask)


@pytest.mark.parametrize(("long", "copies"), [(MIN_COPIED, True), (MIN_COPIED - 1, False)])
def test_long_sequences_reach_the_kernel_heads_first_where_nothing_is_kept(
    monkeypatch, long, copies
):
    given, kernel = [], torch.nn.functional.scaled_dot_product_attention

    def spy(*qkv, **options):
        given.append([x.is_contiguous() for x in qkv])
        return kernel(*qkv, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    attention, x = Attention(DIM, HEADS, qk_norm=QKNorm()), torch.randn(B, long, DIM)
    kept = attention(x, rope=table(long))
    with torch.no_grad():
        torch.testing.assert_close(attention(x, rope=table(long)), kept)
    assert given == [[False] * 3, [copies] * 3]
