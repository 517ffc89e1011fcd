"""T5's encoder out of its files: the same states as in transformers."""

import inspect
import json

import pytest
import torch
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from tests.models.unet3d_oracles import relative_error
from tests.pretrained.tiny_t5 import make_text_encoder, make_tokenizer
from vdm.conditioning.t5_text import T5TextEncoder, read_tokenizer
from vdm.pretrained.t5_folder import load_t5_text
from vdm.utils.config import build, describe

LENGTH = 16
TEXTS = ["a cat runs", "", "the dogs run in rain"]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    make_tokenizer(folder)
    return folder


@pytest.fixture
def theirs(words, tmp_path):
    model = make_text_encoder(T5Tokenizer.from_pretrained(words))
    model.save_pretrained(tmp_path)
    return model


def tokens(words):
    tokenizer = T5Tokenizer.from_pretrained(words)
    return tokenizer(TEXTS, padding="max_length", max_length=LENGTH, return_tensors="pt")


@torch.no_grad()
@pytest.mark.parametrize("padding", ["read", "zeroed", "masked", "masked_alike", "marked"])
def test_states_agree(theirs, words, tmp_path, padding):
    ours = load_t5_text(tmp_path, words, LENGTH, padding)
    told = tokens(words)
    mask = told.attention_mask
    is_read = padding in ("read", "marked")
    expected = theirs(told.input_ids, None if is_read else mask).last_hidden_state
    states = ours.encode(TEXTS)
    if padding == "zeroed":
        expected = expected * mask[..., None]
    assert relative_error(states.text, expected) < 1e-6
    assert (states.text_mask is not None) == padding.startswith("ma")
    assert ours.masks_alike == (padding == "masked_alike")
    if states.text_mask is not None:
        assert torch.equal(states.text_mask, mask.float())
    assert states.pooled_text is None
    assert not any(value.is_meta for value in [*ours.parameters(), *ours.buffers()])


@torch.no_grad()
def test_the_encoder_of_many_languages_has_distances_in_every_layer(words, tmp_path):
    t5 = make_text_encoder(T5Tokenizer.from_pretrained(words))
    settings = {key: value for key, value in t5.config.to_dict().items() if key != "model_type"}
    torch.manual_seed(0)
    theirs = UMT5EncoderModel(UMT5Config(**settings)).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path)
    ours = load_t5_text(tmp_path, words, LENGTH, "masked")
    expected = theirs(**tokens(words)).last_hidden_state
    assert relative_error(ours(TEXTS).text, expected) < 1e-6


def test_the_published_size_has_the_published_count(words):
    config = {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    }
    with torch.device("meta"):
        ours = T5TextEncoder(config, read_tokenizer(words))
    assert sum(p.numel() for p in ours.parameters()) == 4_762_310_656


@torch.no_grad()
def test_it_is_written_down_and_built_again_without_its_folder(theirs, words, tmp_path):
    ours = load_t5_text(tmp_path, words, LENGTH)
    again = build(json.loads(json.dumps(describe(ours)))).eval()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(TEXTS).text, ours(TEXTS).text)


@torch.no_grad()
def test_capitals_may_not_count(theirs, words, tmp_path):
    ours = load_t5_text(tmp_path, words, LENGTH, lowers=True)
    assert torch.equal(ours([" A Cat runs"]).text, ours(["a cat runs"]).text)
    exact = load_t5_text(tmp_path, words, LENGTH)
    assert not torch.equal(exact(["A cat runs"]).text, exact(["a cat runs"]).text)


@torch.no_grad()
def test_texts_may_be_put_right(theirs, words, tmp_path):
    ours = load_t5_text(tmp_path, words, LENGTH, mends=True)
    plain = load_t5_text(tmp_path, words, LENGTH)
    broken, whole = " a cat&amp;amp;\n\t runs\uff0c", "a cat& runs,"
    assert torch.equal(ours([broken]).text, ours([whole]).text)
    assert torch.equal(ours([whole]).text, plain([whole]).text)
    assert not torch.equal(plain([broken]).text, plain([whole]).text)


@torch.no_grad()
def test_of_long_texts_the_end_is_not_read(theirs, words, tmp_path):
    ours = load_t5_text(tmp_path, words, 4)
    with pytest.warns(
        UserWarning, match=r"got a prompt of \d+ tokens, of which 4 are read: 'a cat r"
    ):
        states = ours(["a cat runs"])
    assert states.text.shape == (1, 4, 14)


def test_what_is_none_is_refused(theirs, words, tmp_path):
    unchecked = inspect.unwrap(T5TextEncoder.__init__)
    with pytest.raises(ValueError, match="got padding='kept', expected one of read, zeroed, mas"):
        unchecked(T5TextEncoder.__new__(T5TextEncoder), {}, {}, LENGTH, "kept")
    with pytest.raises(FileNotFoundError, match="no tokenizer in"):
        load_t5_text(tmp_path, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ValueError, match="got model_type='bert', expected 't5' or 'umt5'"):
        load_t5_text(tmp_path, words)
    with pytest.raises(ValueError, match=r"got tokenizer files \['tokenizer.json'\], which make"):
        T5TextEncoder(config, {"tokenizer.json": "{}"})
