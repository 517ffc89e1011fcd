"""Pictures as CLIP's own code prepares them."""

import pytest
import torch
from torchvision.transforms.functional import to_pil_image
from transformers import CLIPImageProcessor

from vdm.conditioning.clip_image import ClipStatesEncoder, middle

SIDE = 12
TINY = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "patch_size": 4}


@pytest.mark.parametrize("size", [(30, 51), (41, 20), (7, 9), (12, 12)])
def test_the_middle_is_what_its_processor_cuts_out(size):
    levels = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    sides = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    prepare = CLIPImageProcessor(**sides, do_normalize=False)
    expected = prepare(to_pil_image(levels), return_tensors="pt").pixel_values
    found = middle(levels[None] / 127.5 - 1, SIDE)
    assert (found - expected).abs().max() < 1.01 / 255  # how eight bits are rounded differs
    assert (found - expected).abs().mean() < 0.1 / 255


@torch.no_grad()
def test_the_last_layer_does_not_count():
    encoder = ClipStatesEncoder(TINY | {"num_hidden_layers": 2, "image_size": SIDE}).eval()
    picture = 2 * torch.rand(2, 3, 20, 30) - 1
    states = encoder.encode_image(picture)
    assert states.shape == (2, encoder.num_tokens, 16) == (2, 10, 16)
    last = encoder.model.encoder.layers[-1]
    for parameter in last.parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(encoder.encode_image(picture), states)
