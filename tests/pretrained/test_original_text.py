"""open-clip is the oracle of its own text tower and vocabulary."""

import json
import sys

import open_clip
import pytest
import torch

from tests.models.unet3d_oracles import relative_error
from vdm.conditioning.clip_text import ClipTextEncoder
from vdm.pretrained.keymap import ForeignWeights
from vdm.pretrained.loading import fill
from vdm.pretrained.original_text import (
    VIT_H_PENULTIMATE,
    open_clip_surplus,
    open_clip_text_entries,
    open_clip_tokenizer,
)

TEXTS = [
    "a panda eats bamboo, 4k.",
    "",
    "Two DOGS   run; it's raining -- \u00fcber \u732b \U0001f408 12345!",
]
TINY = {"hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def words():
    return open_clip_tokenizer()


def test_tokens_agree(words):
    with torch.device("meta"):
        ours = ClipTextEncoder(VIT_H_PENULTIMATE, words, pad_id=0)
    numbers = torch.tensor([ours._numbers(text) for text in TEXTS])
    assert torch.equal(numbers, open_clip.tokenize(TEXTS))
    assert len(json.loads(words["vocab.json"])) == VIT_H_PENULTIMATE["vocab_size"] == 49408
    with pytest.warns(UserWarning, match="got a prompt of 102 tokens, of which 77 are read"):
        cut = ours._numbers("dog " * 100)
    assert cut == open_clip.tokenize("dog " * 100)[0].tolist()


@torch.no_grad()
def test_states_of_the_last_layer_but_one_agree(words):
    torch.manual_seed(0)
    layers = 3
    theirs = open_clip.CLIP(
        16,
        {"layers": 1, "width": 16, "head_width": 8, "image_size": 16, "patch_size": 8},
        {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": layers},
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("visual.")}
    ours = ClipTextEncoder(VIT_H_PENULTIMATE | TINY | {"num_hidden_layers": layers - 1}, words, 0)
    surplus = open_clip_surplus(list(state), layers - 1)
    fill(ours, ForeignWeights(state, open_clip_text_entries(ours), surplus), "test")

    x = theirs.token_embedding(open_clip.tokenize(TEXTS)) + theirs.positional_embedding
    for block in theirs.transformer.resblocks[:-1]:
        x = block(x, attn_mask=theirs.attn_mask)
    assert relative_error(ours(TEXTS).text, theirs.ln_final(x)) < 1e-5


def test_without_open_clip_there_is_no_vocabulary(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"pip install 'vdm\[encoders\]'"):
        open_clip_tokenizer()


def test_the_full_size_is_that_published():
    with torch.device("meta"):
        encoder = ClipTextEncoder(VIT_H_PENULTIMATE, open_clip_tokenizer())
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 340_387_840
