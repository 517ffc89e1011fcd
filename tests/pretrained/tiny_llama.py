"""A small language model with a tokenizer, and a CLIP of the published length."""

import json
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from tests.pretrained import tiny_clip
from vdm.conditioning.llama_text import QUESTION
from vdm.conditioning.llava_text import PICTURE
from vdm.conditioning.llava_text import QUESTION as QUESTION_OF_PICTURE

SPECIAL = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<pad>"]
SPECIAL.append(PICTURE)
CLIP_LENGTH = 77


def make_llama_tokenizer():
    """Words of the question and marks of a conversation; the beginning of a text is marked, too."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator([QUESTION, QUESTION_OF_PICTURE], trainer)
    begin = SPECIAL[0]
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, made.token_to_id(begin))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=begin, pad_token="<pad>", padding_side="right"
    )


def make_llama(dim):
    """Tokenizer and model, every parameter drawn anew."""
    tokenizer = make_llama_tokenizer()
    return tokenizer, _drawn(LlamaModel(_config(tokenizer, dim)))


def _config(tokenizer, dim):
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        intermediate_size=20,
        num_hidden_layers=4,
        num_attention_heads=1,
        num_key_value_heads=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
    )


SIDE, PATCH = 12, 4
"""Pixels of what tiny models see of a picture, and of its parts."""


def make_llava(dim):
    """Tokenizer, how pictures are prepared, and a model that sees, every parameter drawn anew."""
    tokenizer = make_llama_tokenizer()
    eyes = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )
    config = LlavaConfig(
        vision_config=eyes,
        text_config=_config(tokenizer, dim),
        image_token_index=tokenizer.convert_tokens_to_ids(PICTURE),
        image_seq_length=(SIDE // PATCH) ** 2,
        pad_token_id=tokenizer.pad_token_id,
    )
    sides = {"height": SIDE, "width": SIDE}
    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=sides)
    return tokenizer, pictures, _drawn(LlavaForConditionalGeneration(config))


def make_clip(dim):
    """Tokenizer of letters and model, every parameter drawn anew."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_clip.make_tokenizer(Path(folder))
        settings = Path(folder) / "tokenizer_config.json"
        told = json.loads(settings.read_text()) | {"model_max_length": CLIP_LENGTH}
        settings.write_text(json.dumps(told))
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return tokenizer, _drawn(CLIPTextModel(config))


def _drawn(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()
