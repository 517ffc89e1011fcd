"""A language model and CLIP side by side: what is refused, and what stays exact."""

import pytest
import torch

from tests.pretrained.tiny_llama import make_llama_tokenizer
from vdm.conditioning.clip_text import read_tokenizer
from vdm.conditioning.llama_text import LlamaClipEncoder

LLAMA = {
    "vocab_size": 512,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    make_llama_tokenizer().save_pretrained(folder)
    return read_tokenizer(folder)


def make(words, monkeypatch, **changes):
    monkeypatch.setattr(
        "vdm.conditioning.llama_text.ClipTextEncoder", lambda *_: torch.nn.Linear(2, 3)
    )
    return LlamaClipEncoder(LLAMA | changes, words, {}, {})


def test_rotations_stay_exact_in_any_number_format(words, monkeypatch):
    encoder = make(words, monkeypatch)
    before = encoder.llama.rotary_emb.inv_freq.clone()
    assert before.dtype == torch.float32
    encoder.to(torch.bfloat16)
    assert encoder.llama.embed_tokens.weight.dtype == torch.bfloat16
    assert torch.equal(encoder.llama.rotary_emb.inv_freq, before)
    with torch.device("meta"):
        planned = make(words, monkeypatch)
    assert planned.llama.embed_tokens.weight.is_meta
    assert torch.equal(planned.llama.rotary_emb.inv_freq, before)


def test_what_makes_no_encoder_is_refused(words, monkeypatch):
    with pytest.raises(ValueError, match="got 1 layers, expected at least 2"):
        make(words, monkeypatch, num_hidden_layers=1)
    with pytest.raises(ValueError, match="got settings of which there is no LlamaModel"):
        make(words, monkeypatch, hidden_act="none")
    with pytest.raises(ValueError, match=r"got tokenizer files \['tokenizer.json'\], which make"):
        make({"tokenizer.json": "{}"}, monkeypatch)
    settings = {"tokenizer_config.json": '{"tokenizer_class": "PreTrainedTokenizerFast"}'}
    with pytest.raises(ValueError, match="got a tokenizer without pad_token"):
        make({"tokenizer.json": words["tokenizer.json"], **settings}, monkeypatch)
