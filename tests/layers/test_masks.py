import pytest
import torch

from vdm.layers import masks


def test_no_frame_sees_a_later_one():
    mask = masks.causal(4)
    assert torch.equal(mask, torch.ones(4, 4, dtype=torch.bool).tril())


def test_a_frame_sees_itself_whole():
    mask = masks.block_causal(3, 2)
    assert torch.equal(mask, torch.kron(masks.causal(3), torch.ones(2, 2)).bool())


def test_a_window_hides_frames_far_away():
    both = masks.sliding_window(6, 2)
    assert both.sum() == 6 + 2 * 5
    assert torch.equal(both, both.T)
    back = masks.sliding_window(6, 2, is_causal=True)
    assert torch.equal(back, both.tril())
    assert torch.equal(masks.sliding_window(6, 1), torch.eye(6, dtype=torch.bool))


def test_a_window_of_no_frame_is_refused():
    with pytest.raises(ValueError, match="got window=0, expected at least 1"):
        masks.sliding_window(3, 0)


def test_queries_may_start_after_the_keys():
    mask = masks.visible(torch.tensor([4, 5]), torch.arange(2, 6), is_causal=True, window=3)
    assert mask.tolist() == [[True, True, True, False], [False, True, True, True]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int64])
def test_padding_is_hidden_from_all_heads_and_queries(dtype):
    valid = torch.tensor([[1, 1, 0], [1, 0, 0]]).to(dtype)
    mask = masks.padding(valid)
    assert mask.shape == (2, 1, 1, 3)
    assert torch.equal(mask[:, 0, 0], valid.bool())


def test_masks_combine():
    padding = masks.padding(torch.tensor([[1, 0, 1]]))
    both = masks.combine(None, masks.causal(3), padding)
    assert both[0, 0].int().tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 1]]
    assert masks.combine(None, None) is None
