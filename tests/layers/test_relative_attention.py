import math

import pytest
import torch

from vdm.layers.attention import Attention
from vdm.layers.factorization import Temporal
from vdm.layers.relative_attention import RelativeAttention, RelativeTable

B, N, DIM, HEADS, REACH = 2, 6, 12, 3, 2


@pytest.fixture
def attention():
    made = RelativeAttention(DIM, HEADS, max_distance=REACH, qkv_bias=False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def token_by_token(attention, x):
    """The equations of the paper for one token and one head after the other."""
    width = DIM // HEADS
    q, k, v = (linear(x) for linear in (attention.to_q, attention.to_k, attention.to_v))
    out = torch.zeros_like(x)
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        for i in range(N):
            places = [min(max(j - i, -REACH), REACH) + REACH for j in range(N)]
            keys = k[:, :, part] + attention.relative_k.table[places]
            values = v[:, :, part] + attention.relative_v.table[places]
            scores = (keys @ q[:, i, part, None])[..., 0] / math.sqrt(width)
            out[:, i, part] = (scores.softmax(-1)[..., None] * values).sum(1)
    return attention.to_out(out)


@torch.no_grad()
def test_it_is_the_equations_of_the_paper(attention):
    x = torch.randn(B, N, DIM)
    torch.testing.assert_close(attention(x), token_by_token(attention, x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_without_vectors_for_distances_it_is_plain_attention(attention):
    plain = Attention(DIM, HEADS, qkv_bias=False)
    plain.load_state_dict({k: v for k, v in attention.state_dict().items() if "relative" not in k})
    x = torch.randn(B, N, DIM)
    assert not torch.allclose(attention(x), plain(x), atol=1e-2)
    for table in (attention.relative_k.table, attention.relative_v.table):
        torch.nn.init.zeros_(table)
    torch.testing.assert_close(attention(x), plain(x), rtol=1e-5, atol=1e-5)


def test_distances_are_signed_and_bounded():
    table = RelativeTable(4, REACH)
    ahead = torch.tensor([[-9, -2, -1, 0, 1, 2, 9]])
    assert torch.equal(table(ahead)[0], table.table[[0, 0, 1, 2, 3, 4, 4]])


@pytest.mark.parametrize("window", [None, 3])
@torch.no_grad()
def test_frame_by_frame_equals_the_whole(attention, window):
    rule, tokens = Temporal(is_causal=True, window=window), torch.randn(B, N, 2, 3, DIM)
    whole = rule(tokens, attention)
    cache, pieces = None, []
    for piece in tokens.split([1, 3, 2], dim=1):
        out, cache = rule.step(piece, attention, cache=cache)
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=1e-5)


def test_numbers_are_added_to_scores(attention):
    x, hidden = torch.randn(B, N, DIM), torch.tril(torch.ones(N, N, dtype=torch.bool))
    added = torch.zeros(N, N).masked_fill(~hidden, -torch.inf)
    torch.testing.assert_close(attention(x, mask=hidden), attention(x, mask=added))


def test_a_shorter_context_is_refused(attention):
    x = torch.randn(B, N, DIM)
    with pytest.raises(ValueError, match="got 4 keys for 6 queries"):
        attention(x, x[:, :4])
