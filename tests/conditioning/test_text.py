import pytest
import torch

from vdm.conditioning.text import WordTextEncoder, WordTokenizer
from vdm.types import Conditioning
from vdm.utils.config import build, describe
from vdm.world.captions import WORDS

PROMPTS = [
    "a red circle moves left",
    "a red circle moves left and a blue square spins clockwise, the camera pans left.",
    "",
]


@pytest.fixture
def encoder():
    return WordTextEncoder(dim=12, depth=2, num_heads=2, max_length=20).eval()


def test_every_word_of_the_world_has_a_token():
    tokenizer = WordTokenizer()
    assert {tokenizer.index[word] for word in WORDS} == set(range(2, len(tokenizer)))


@pytest.mark.parametrize(
    "prompt",
    ["A Red CIRCLE moves left", "a red circle moves left.", "  a red  circle moves left  "],
)
def test_case_spaces_and_the_final_period_do_not_matter(prompt):
    tokenizer = WordTokenizer()
    assert tokenizer.tokens(prompt) == tokenizer.tokens(PROMPTS[0])


@pytest.mark.parametrize("comma", [", ", ",", " , "])
def test_a_comma_is_a_word(comma):
    tokenizer = WordTokenizer()
    tokens = tokenizer.tokens(f"a star grows{comma}the camera zooms in")
    assert tokens.count(tokenizer.index[","]) == 1
    assert len(tokens) == 9


def test_an_unknown_word_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown word 'purpel' in the .* did you mean 'purple'"):
        WordTokenizer().tokens("a purpel star grows")


def test_known_words_in_no_sentence_are_refused_from_users_only():
    encoder = WordTextEncoder(dim=12, depth=1, num_heads=3)
    with pytest.raises(ValueError, match=r"got the end as word 4, expected stays, .*'a red star'"):
        encoder.encode(["", "a red star"])
    assert encoder(["a red star"]).text.shape == (1, 4, 12)
    other = WordTextEncoder(dim=12, depth=1, num_heads=3, words=("red", "star"))
    assert other.encode(["star red"]).text.shape == (1, 3, 12)


def test_nothing_is_encoded_before_every_word_is_checked(monkeypatch):
    encoder = WordTextEncoder(dim=12, depth=1, num_heads=3)
    monkeypatch.setattr(encoder, "forward", lambda prompts: pytest.fail("encoded"))
    with pytest.raises(ValueError, match="expected stays"):
        encoder.encode(["a red star"])
    with pytest.raises(ValueError, match=r"unknown word 'purpel' .* did you mean 'purple'"):
        encoder.encode(["a purpel star grows"])


@pytest.mark.parametrize("word", ["<pad>", "<cls>"])
def test_special_tokens_cannot_be_written(word):
    with pytest.raises(ValueError, match="unknown word"):
        WordTokenizer().tokens(word)


def test_a_caption_too_long_is_refused():
    with pytest.raises(ValueError, match="got a prompt of 5 words, expected at most 4"):
        WordTokenizer(max_length=5).tokens(PROMPTS[0])


def test_words_are_distinct():
    with pytest.raises(ValueError, match="got the word 'red' twice"):
        WordTokenizer(["red", "blue", "red"])


def test_captions_are_padded_to_the_longest():
    numbers, valid = WordTokenizer()(PROMPTS)
    assert valid.sum(1).tolist() == [6, 17, 1]
    assert numbers.shape == (3, 17)
    assert not numbers[~valid].any()
    assert WordTokenizer()([])[0].shape == (0, 1)


def test_states_fill_the_conditioning(encoder):
    cond = Conditioning(**encoder.encode(PROMPTS)._asdict())
    assert cond.text.shape == (3, 17, 12)
    assert cond.text_mask.sum(1).tolist() == [6, 17, 1]
    assert cond.pooled_text.shape == (3, 12)
    assert not cond.text[cond.text_mask == 0].any()


def test_a_caption_does_not_depend_on_its_batch(encoder):
    together = encoder(PROMPTS)
    for k, prompt in enumerate(PROMPTS):
        alone = encoder([prompt])
        length = alone.text.shape[1]
        torch.testing.assert_close(together.text[k : k + 1, :length], alone.text)
        torch.testing.assert_close(together.pooled_text[k : k + 1], alone.pooled_text)


def test_which_object_does_what_makes_a_difference(encoder):
    swapped = [
        "a red circle spins clockwise and a blue square grows",
        "a blue circle spins clockwise and a red square grows",
        "a red circle grows and a blue square spins clockwise",
    ]
    pooled = encoder(swapped).pooled_text
    assert torch.pdist(pooled).min() > 1e-4


def test_deterministic_in_eval(encoder):
    assert torch.equal(encoder(PROMPTS).text, encoder(PROMPTS).text)


def test_every_weight_is_trained(encoder):
    states = encoder(PROMPTS)
    weights = torch.randn_like(states.text)
    (states.text * weights).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_the_vocabulary_is_written_down_with_the_encoder(encoder):
    description = describe(encoder)
    assert description["init_args"]["words"] == list(WORDS)
    again = build(description)
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again.eval()(PROMPTS).text, encoder(PROMPTS).text)
