"""CLIP's text transformer out of its files: the same states as in transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from tests.models.unet3d_oracles import relative_error
from tests.pretrained.tiny_clip import LENGTH, make_text_encoder, make_tokenizer
from vdm.pretrained.diffusers_folder import load_clip_text
from vdm.utils.config import build, describe

TEXTS = ["a cat", "", "dogs run"]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    make_tokenizer(folder)
    return folder


@pytest.fixture
def theirs(words, tmp_path):
    model = make_text_encoder(CLIPTokenizer.from_pretrained(words))
    model.save_pretrained(tmp_path)
    return model


@torch.no_grad()
def test_states_agree(theirs, words, tmp_path):
    ours = load_clip_text(tmp_path, words)
    tokenizer = CLIPTokenizer.from_pretrained(words)
    ids = tokenizer(TEXTS, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids
    expected, states = theirs(ids), ours.encode(TEXTS)
    assert relative_error(states.text, expected.last_hidden_state) < 1e-6
    assert relative_error(states.pooled_text, expected.pooler_output) < 1e-6
    assert states.text_mask is None
    assert not any(value.is_meta for value in [*ours.parameters(), *ours.buffers()])


@torch.no_grad()
def test_older_files_have_longer_names(theirs, words, tmp_path):
    path = tmp_path / "model.safetensors"
    state = {f"text_model.{key}": value for key, value in load_file(path).items()}
    state["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    expected = load_clip_text(tmp_path, words)(TEXTS).text
    save_file(state, path)
    assert torch.equal(load_clip_text(tmp_path, words)(TEXTS).text, expected)


@torch.no_grad()
def test_it_is_written_down_and_built_again_without_its_folder(theirs, words, tmp_path):
    ours = load_clip_text(tmp_path, words)
    again = build(json.loads(json.dumps(describe(ours)))).eval()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(TEXTS).text, ours(TEXTS).text)


def test_a_long_prompt_is_cut_with_a_warning(theirs, words, tmp_path):
    with pytest.warns(UserWarning, match=r"got a prompt of \d+ tokens, of which 14 are read"):
        load_clip_text(tmp_path, words)(["a cat and a dog and another cat"])


def test_what_is_no_text_transformer_is_refused(theirs, words, tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer in"):
        load_clip_text(tmp_path, tmp_path / "nowhere")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "vocab.json").write_text("{}")
    with pytest.raises(ValueError, match="which make none"):
        load_clip_text(tmp_path, tmp_path / "bad")
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "t5"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="got model_type='t5', expected 'clip_text_model'"):
        load_clip_text(tmp_path, words)
