"""What Open-Sora's authors release, small and drawn at random, and what they make of it."""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from einops import rearrange
from safetensors.torch import save_file

from tests.models.unet3d_oracles import reference
from tests.pretrained import opensora_oracle as oracle
from tests.pretrained import opensora_vae_oracle as vae_oracle
from tests.pretrained.opensora_vae_oracle import VideoVAEOracle
from tests.pretrained.test_diffusers_vae import IMAGE
from tests.pretrained.tiny_t5 import make_text_encoder, make_tokenizer

TEXT, IMAGE_VAE, FILE = "t5-v1_1-xxl", "sd-vae-ft-ema", "OpenSora-v1-HQ-16x256x256.pth"
NETWORK, VIDEO_VAE = "OpenSora-STDiT-v3", "OpenSora-VAE-v1.2"


def image_vae():
    config = IMAGE | {"latent_channels": 4, "scaling_factor": 0.18215}
    return reference(AutoencoderKL, 0.7, **config)


class Words:
    """The text encoder, whose folder holds its tokenizer, too."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer = make_tokenizer(Path(folder))
        self.text_encoder = make_text_encoder(self.tokenizer)

    def save_words(self, folder):
        self.text_encoder.save_pretrained(folder / TEXT)
        self.tokenizer.save_pretrained(folder / TEXT)

    def encode(self, texts, length):
        """States, and which are of words."""
        told = self.tokenizer(
            [text.lower().strip() for text in texts],
            padding="max_length", max_length=length, truncation=True, return_tensors="pt",
        )  # fmt: skip
        states = self.text_encoder(told.input_ids, attention_mask=told.attention_mask)
        return states.last_hidden_state, told.attention_mask

    def both(self, network, prompts, negatives):
        """States of prompts, then of what stands for none, both read as far as prompts go."""
        length = len(network.y_embedder.y_embedding)
        states, mask = self.encode(prompts, length)
        if negatives is None:
            away = network.y_embedder.y_embedding.expand_as(states)
        else:
            away, _ = self.encode(negatives, length)
        return torch.cat((states, away)), torch.cat((mask, mask))


class ReleaseOne(Words):
    """Version 1.0."""

    def __init__(self):
        super().__init__()
        self.network = reference(oracle.STDiT, 0.7, **oracle.ONE)
        self.vae = image_vae()

    def save_pretrained(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.network.state_dict(), folder / FILE)
        self.vae.save_pretrained(folder / IMAGE_VAE)
        self.save_words(folder)

    def sample(self, prompts, negatives, noise, steps, scale, seeds, num_guided=3):
        """The ancestral sampler of improved diffusion, of as many steps out of 1000."""
        table = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000))
        place, kept = 0.0, []
        for _ in range(steps):
            kept.append(round(place))
            place += 999 / (steps - 1)
        alpha_bar = table[kept]
        before = np.append(1.0, alpha_bar[:-1])
        beta = 1 - alpha_bar / before
        least = beta * (1 - before) / (1 - alpha_bar)
        least = np.append(least[1], least[1:])
        states, mask = self.both(self.network, prompts, negatives)
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        x = noise.double()
        for k in reversed(range(steps)):
            step = torch.full((2 * len(x),), float(kept[k]))
            out = self.network(torch.cat((x, x)).float(), step, states, mask).double()
            cond, uncond = (half[:, :num_guided] for half in out.chunk(2))
            eps, said = out[: len(x)].chunk(2, dim=1)
            eps = torch.cat((uncond + scale * (cond - uncond), eps[:, num_guided:]), dim=1)
            x0 = (x - (1 - alpha_bar[k]) ** 0.5 * eps) / alpha_bar[k] ** 0.5
            share = (said + 1) / 2
            log_variance = share * np.log(beta[k]) + (1 - share) * np.log(least[k])
            x = beta[k] * before[k] ** 0.5 / (1 - alpha_bar[k]) * x0 + (
                (1 - before[k]) * (1 - beta[k]) ** 0.5 / (1 - alpha_bar[k]) * x
            )
            if k:
                drawn = [torch.randn(x.shape[1:], generator=draw) for draw in draws]
                x = x + (log_variance / 2).exp() * torch.stack(drawn)
        return x.float()

    def decode(self, latents):
        """Frames in [0, 1]."""
        frames = rearrange(latents / 0.18215, "b c t h w -> (b t) c h w")
        video = self.vae.decode(frames).sample
        video = rearrange(video, "(b t) c h w -> b c t h w", b=len(latents))
        return (video / 2 + 0.5).clamp(0, 1)


class ReleaseTwo(Words):
    """Version 1.2."""

    def __init__(self):
        super().__init__()
        self.network = reference(oracle.STDiT3, 0.7, **oracle.TWO)
        self.network.publish()
        self.vae = reference(VideoVAEOracle, 0.7, image=vae_oracle.IMAGE, **vae_oracle.SMALL)

    def save_pretrained(self, folder):
        size = oracle.TWO
        config = {
            "architectures": ["STDiT3"],
            "model_type": "STDiT3",
            "caption_channels": size["text_dim"],
            "class_dropout_prob": 0.1,
            "depth": size["depth"],
            "drop_path": 0.0,
            "enable_flash_attn": True,
            "enable_layernorm_kernel": True,
            "enable_sequence_parallelism": False,
            "freeze_y_embedder": True,
            "hidden_size": size["dim"],
            "in_channels": 4,
            "input_size": [None, None, None],
            "input_sq_size": 512,
            "mlp_ratio": 4.0,
            "model_max_length": size["num_text"],
            "num_heads": size["heads"],
            "only_train_temporal": False,
            "patch_size": [1, 2, 2],
            "pred_sigma": True,
            "qk_norm": True,
            "skip_y_embedder": False,
            "torch_dtype": "float32",
            "transformers_version": "4.38.2",
        }
        parts = {NETWORK: (self.network, config), VIDEO_VAE: (self.vae, self.vae.config())}
        for name, (module, settings) in parts.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "config.json").write_text(json.dumps(settings))
            save_file(module.state_dict(), folder / name / "model.safetensors")
        self.save_words(folder)

    def given(self, video):
        """Latents of a clip in [0, 1] as networks see them."""
        return (self.vae.encode_mean(2 * video - 1) - self.vae.shift) / self.vae.scale

    def sample(self, prompts, negatives, noise, steps, scale, fps, size, num_frames, given=None):
        """The loop of the rectified flow, guided; the first latents may be given ones."""
        texts, mask = self.both(self.network, prompts, negatives)
        latent_frames = 1 if num_frames == 1 else num_frames // 17 * 5
        ratio = (size[0] * size[1] / 512**2) ** 0.5 * latent_frames**0.5
        times = [1 - k / steps for k in range(steps)]
        times = [ratio * t / (1 + (ratio - 1) * t) for t in times]
        rates = torch.full((2 * len(noise),), float(fps))
        x, known = noise.clone(), 0 if given is None else given.shape[2]
        if given is not None:
            x[:, :, :known] = given
        is_noisy = torch.arange(x.shape[2]).expand(2 * len(x), -1) >= known
        for t, after in zip(times, [*times[1:], 0.0], strict=True):
            step = torch.full((2 * len(x),), 1000 * t)
            out = self.network(torch.cat((x, x)), step, texts, mask, rates, size, is_noisy)
            cond, uncond = out[:, :4].chunk(2)
            moved = x + (uncond + scale * (cond - uncond)) * (t - after)
            x = torch.where(is_noisy[: len(x), None, :, None, None], moved, x)
        return x
