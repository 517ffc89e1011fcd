"""A tokenizer of pieces, and a small text encoder for it."""

from pathlib import Path

import sentencepiece
import torch
from transformers import T5Config, T5EncoderModel, T5Tokenizer

SENTENCES = ["a cat runs on the grass", "the dogs run in rain", "one bird flies over a house"]


def make_tokenizer(folder: Path) -> T5Tokenizer:
    """Written to a folder as published ones are: pieces, and settings."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(folder / "spiece"),
        vocab_size=25,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    settings = '{"tokenizer_class": "T5Tokenizer", "model_max_length": 226, "extra_ids": 3}'
    (folder / "tokenizer_config.json").write_text(settings)
    return T5Tokenizer.from_pretrained(folder)


def make_text_encoder(tokenizer: T5Tokenizer, dim: int = 14) -> T5EncoderModel:
    """Every parameter drawn anew."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=dim,
        d_kv=6,
        d_ff=20,
        num_layers=2,
        num_heads=3,
        feed_forward_proj="gated-gelu",
        dense_act_fn="gelu_new",
    )
    torch.manual_seed(0)
    model = T5EncoderModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model
