"""Given frames beside the noise, and in place of it."""

import torch

from vdm.conditioning.given import InPlace
from vdm.pipelines.given import keep_given, show_given
from vdm.pipelines.steering import frame_masks
from vdm.types import Conditioning

B, C, T, H, W = 2, 3, 3, 4, 6


def test_masks_tell_which_frames_of_a_latent_are_given():
    pixels = torch.zeros(1, 1, 8, 4, 6)
    pixels[:, :, [0, 6]] = 1
    pixels[:, :, 2, :2] = 1  # the upper half alone
    masks = frame_masks(pixels, (4, 2, 3))
    assert masks.shape == (1, 4, 3, 2, 2)
    upper, lower = masks[0, :, :, 0, 0].T.tolist(), masks[0, :, :, 1, 1].T.tolist()
    assert upper == [[1, 1, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]]
    assert lower == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_a_last_frame_stands_for_what_is_missing_behind_it():
    pixels = torch.zeros(1, 1, 7, 2, 2)
    pixels[:, :, -1] = 1
    assert frame_masks(pixels, (4, 2, 2))[0, :, :, 0, 0].T.tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 1, 1, 1],
    ]


def test_frames_in_place_have_no_noise_and_are_told_to_have_none():
    given, mask = torch.randn(B, C, T, H, W), torch.zeros(B, 1, T, H, W)
    mask[:, :, 0] = 1
    mask[:, :, 1, :2] = 1  # part of a frame has the noise of the frame
    exact, told = Conditioning(given=given, given_mask=mask), {}

    def denoise(xt, t):
        told.update(xt=xt, t=t)
        return torch.full_like(xt, 7.0)

    xt = torch.randn(B, C, T, H, W)
    x0 = keep_given(denoise, exact, InPlace())(xt, torch.tensor([0.4, 0.9]))
    assert torch.equal(told["xt"][:, :, 0], given[:, :, 0])
    assert torch.equal(told["xt"][:, :, 1:], xt[:, :, 1:])
    assert torch.equal(told["t"], torch.tensor([[0.0, 0.4, 0.4], [0.0, 0.9, 0.9]]))
    assert torch.equal(x0, torch.where(mask == 1, given, torch.tensor(7.0)))
    assert show_given(exact, InPlace(), {"text"}, None, [0, 1]) == {}
