import pytest
import torch
from lightning import Trainer

from tests.training.test_diffusion_module import CAPTIONS, batch_of, tiny
from vdm.conditioning.text import WordTextEncoder
from vdm.training.text_states import CachedCaptions


def test_a_network_is_told_the_same_with_captions_kept(tmp_path):
    torch.manual_seed(0)
    encoder = WordTextEncoder(dim=16, depth=1, num_heads=2).requires_grad_(False)
    module = tiny(text_encoder=encoder)
    x0 = batch_of(3)["latents"]
    before = module.conditioning(x0, CAPTIONS, "train", [0, 1, 2])
    CachedCaptions(str(tmp_path)).on_fit_start(Trainer(logger=False), module)
    after = module.conditioning(x0, CAPTIONS, "train", [0, 1, 2])
    torch.testing.assert_close(after.text, before.text, atol=1e-6, rtol=1e-6)
    assert torch.equal(after.text_mask, before.text_mask)
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.glob("*.safetensors"))) == 3
    assert not any("text_cache" in name for name in module.state_dict())


def test_a_trained_encoder_and_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one that stays as it is"):
        CachedCaptions(str(tmp_path)).on_fit_start(Trainer(logger=False), tiny())
    with pytest.raises(ValueError, match="expected a model with a text encoder"):
        CachedCaptions(str(tmp_path)).on_fit_start(Trainer(logger=False), tiny(text_encoder=None))
