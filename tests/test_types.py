"""The conditioning record keeps what it is told, exactly, wherever it goes."""

import pytest
import torch

from vdm.types import NUMBERS, Conditioning

B = 2


def everything():
    return Conditioning(
        text=torch.randn(B, 3, 5),
        text_mask=torch.ones(B, 3),
        label=torch.tensor([999, 7]),
        given=torch.randn(B, 4, 3, 2, 6),
        fps=torch.tensor([23.976, 30.0]),
        motion_bucket=torch.tensor([127.0, 255.0]),
        noise_aug=torch.tensor([0.02, 0.7]),
        size=torch.tensor([[1023.0, 577.0], [480.0, 721.0]]),
        guidance=torch.tensor([7.53, 1.0]),
        token_times=torch.rand(B, 3),
        starts=torch.tensor([[0.0, 257.0, 513.0]] * B),
    )


def test_half_precision_changes_neither_labels_nor_numbers():
    cond = everything()
    half = cond.to(torch.bfloat16)
    assert half.label.dtype == torch.int64
    assert half.label.tolist() == [999, 7]
    for name in NUMBERS:
        assert torch.equal(getattr(half, name), getattr(cond, name)), name
        assert getattr(half, name).dtype == torch.float32
    for name in ("text", "text_mask", "given"):
        assert torch.equal(getattr(half, name), getattr(cond, name).bfloat16()), name


@pytest.mark.parametrize(
    "move",
    [
        lambda cond: cond.to("meta", torch.bfloat16),
        lambda cond: cond.to(device="meta", dtype=torch.bfloat16),
        lambda cond: cond.to(torch.empty(0, device="meta", dtype=torch.bfloat16)),
    ],
)
def test_every_field_goes_to_the_device(move):
    moved = move(everything()).present()
    assert moved.keys() == everything().present().keys()
    assert {value.device.type for value in moved.values()} == {"meta"}
    assert moved["label"].dtype == torch.int64
    assert moved["text"].dtype == torch.bfloat16
    assert moved["size"].dtype == torch.float32


def test_only_what_is_set_is_present():
    cond = Conditioning(fps=torch.ones(B))
    assert list(cond.present()) == ["fps"]
    assert list(cond.replace(fps=None, label=torch.zeros(B, dtype=torch.int64)).present()) == [
        "label"
    ]
    assert cond.map(lambda value: 3 * value).fps.tolist() == [3, 3]


@pytest.mark.parametrize("index", [[1], torch.tensor([1]), slice(1, 2)])
def test_some_samples_are_selected_in_every_field(index):
    cond = everything()
    for name, value in cond.select(index).present().items():
        assert torch.equal(value, getattr(cond, name)[1:])


def test_surplus_and_missing_fields_are_named():
    cond = Conditioning(fps=torch.ones(B))
    cond.check("Net", {"fps", "text"}, {"fps"})
    with pytest.raises(ValueError, match="Net does not read fps; it reads: text"):
        cond.check("Net", {"text"}, set())
    with pytest.raises(ValueError, match="Net needs label; got: fps"):
        cond.check("Net", {"fps", "label"}, {"label"})
