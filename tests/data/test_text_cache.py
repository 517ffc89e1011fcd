"""Captions are read once, and anything that changes their states is a miss."""

import pytest
import torch

from vdm.conditioning.labels import CaptionLabels
from vdm.conditioning.text import WordTextEncoder
from vdm.data.text_cache import TextCache

PROMPTS = ["a red circle moves left", "", "a blue square stays still, the camera pans left"]


class Counting(WordTextEncoder):
    asked = ()

    def forward(self, prompts):
        self.asked = (*self.asked, *prompts)
        return super().forward(prompts)


def make(seed=0, **options):
    torch.manual_seed(seed)
    return Counting(dim=12, depth=1, num_heads=2, **options).requires_grad_(False)


def test_states_are_those_of_the_encoder_and_are_made_once(tmp_path):
    encoder = make()
    expected = encoder(PROMPTS)
    cache = TextCache(encoder, tmp_path)
    for _ in range(2):
        found = cache(PROMPTS)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    encoder.asked = ()
    again = TextCache(encoder, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again(PROMPTS), found, strict=True))
    assert encoder.asked == ("",)  # the probe


@pytest.mark.parametrize(
    "other",
    [lambda: make(1), lambda: make(max_length=32), lambda: make().double()],
    ids=["weights", "arguments", "type"],
)
def test_another_encoder_has_another_folder(other, tmp_path):
    assert TextCache(make(), tmp_path).folder != TextCache(other(), tmp_path).folder
    assert TextCache(make(), tmp_path).folder == TextCache(make(), tmp_path).folder


def test_changed_code_and_damaged_files_are_missed(tmp_path, monkeypatch):
    encoder = make()
    cache = TextCache(encoder, tmp_path)
    before = cache(PROMPTS)
    path = cache._path(PROMPTS[0])
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(cache(PROMPTS).text, before.text)
    forward = WordTextEncoder.forward

    def changed(self, prompts):
        states = forward(self, prompts)
        return states._replace(text=2 * states.text)

    monkeypatch.setattr(WordTextEncoder, "forward", changed)
    torch.testing.assert_close(TextCache(encoder, tmp_path)(PROMPTS).text, 2 * before.text)


def test_an_encoder_that_is_trained_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one that stays as it is"):
        TextCache(make().requires_grad_(True), tmp_path)
    with pytest.raises(ValueError, match="gives no states of tokens"):
        TextCache(CaptionLabels("motion"), tmp_path)
