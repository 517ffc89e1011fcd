"""CLIP's text transformer out of its files: the same states as in transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.models.unet3d_oracles import relative_error
from vdm.pretrained.diffusers_folder import load_clip_text
from vdm.utils.config import build, describe

TEXTS = ["a cat", "", "dogs run"]
LENGTH = 14


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A tokenizer of letters and of a few merges."""
    folder = tmp_path_factory.mktemp("words")
    letters = [chr(code) for code in range(97, 123)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def theirs(words, tmp_path):
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(words)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = CLIPTextModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
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
