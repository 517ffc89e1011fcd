"""What LaVie's authors release, small and drawn at random, and what their code makes with it."""

import diffusers
import torch
from einops import rearrange

from tests.pretrained import lavie_oracle, lavie_upscale_oracle, tiny_models

SD, X4 = "stable-diffusion-v1-4", "stable-diffusion-x4-upscaler"
LINEAR = {"beta_start": 0.0001, "beta_end": 0.02}
LOW = LINEAR | {"beta_schedule": "scaled_linear"}


def upscaler():
    """Stable Diffusion's upscaler; of its network, the settings alone are used."""
    parts = tiny_models.words()
    config = lavie_upscale_oracle.SMALL | {"in_channels": 7, "use_linear_projection": True}
    parts["vae"].register_to_config(scaling_factor=0.08333)
    return diffusers.StableDiffusionUpscalePipeline(
        **parts,
        unet=diffusers.UNet2DConditionModel(**config),
        low_res_scheduler=diffusers.DDPMScheduler(**LOW),
        scheduler=diffusers.DDIMScheduler(
            **LOW,
            prediction_type="v_prediction",
            clip_sample=False,
            steps_offset=1,
            set_alpha_to_one=False,
        ),
    )


class Release:
    """The files of a release."""

    def __init__(self):
        self.image_model, self.upscaler = tiny_models.image(), upscaler()
        small = lavie_oracle.SMALL
        self.networks = {
            "base": tiny_models.small(lavie_oracle.Network, is_base=True, **small),
            "interpolation": tiny_models.small(lavie_oracle.Network, is_base=False, **small),
            "vsr": tiny_models.small(lavie_upscale_oracle.Upscaler, **lavie_upscale_oracle.SMALL),
        }
        for network in self.networks.values():
            network.publish()
        self.base, self.interpolation, self.vsr = self.networks.values()

    def save_pretrained(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.image_model.save_pretrained(folder / SD)
        self.upscaler.save_pretrained(folder / X4)
        for name, network in self.networks.items():
            torch.save({"ema": network.state_dict()}, folder / f"lavie_{name}.pt")

    def words(self, texts):
        tokens = self.image_model.tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        )
        return self.image_model.text_encoder(tokens.input_ids).last_hidden_state

    def decode(self, latents, model):
        """Frames in [0, 1]."""
        frames = rearrange(latents / model.vae.config.scaling_factor, "b c t h w -> (b t) c h w")
        video = rearrange(
            model.vae.decode(frames).sample, "(b t) c h w -> b c t h w", b=len(latents)
        )
        return (video / 2 + 0.5).clamp(0, 1)

    def guided(self, network, prompts, negatives, scale):
        """A prediction from a prediction for each of two texts."""
        texts = [self.words(prompts), self.words(negatives)]

        def predict(*arguments, **named):
            cond, uncond = (network.on_clip(*arguments, text=text, **named) for text in texts)
            return uncond + scale * (cond - uncond)

        return predict

    def text_to_latents(self, prompts, negatives, noise, steps, scale, seeds):
        """The loop of the base model's pipeline: DDPM's scheduler, its own noise for each clip."""
        scheduler = diffusers.DDPMScheduler(
            **LINEAR, beta_schedule="linear", clip_sample=False, steps_offset=1
        )
        scheduler.set_timesteps(steps)
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        predict = self.guided(self.base, prompts, negatives, scale)
        x = noise
        for t in scheduler.timesteps:
            eps = predict(x, t)
            rows = [
                scheduler.step(eps[k : k + 1], t, x[k : k + 1], generator=draw).prev_sample
                for k, draw in enumerate(draws)
            ]
            x = torch.cat(rows)
        return x

    def interpolate(self, prompts, keyframes, noise, steps, scale):
        """The loop of the interpolation: DDIM of guided diffusion, whose steps are respaced."""
        betas = torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64)
        alpha_bar = torch.cumprod(1 - betas, 0)
        stride, place, kept = 999 / (steps - 1), 0.0, []
        for _ in range(steps):
            kept.append(round(place))
            place += stride
        words = [f"{prompt}, 4k." for prompt in prompts], ["None"] * len(prompts)
        predict = self.guided(self.interpolation, *words, scale)
        copied = keyframes.repeat_interleave(4, dim=2)[:, :, 1:-2]
        x = noise.double()
        for k in reversed(range(steps)):
            now, before = alpha_bar[kept[k]], alpha_bar[kept[k - 1]] if k else torch.tensor(1.0)
            eps = predict(torch.cat((x.float(), copied), dim=1), torch.tensor(kept[k])).double()
            x0 = (x - (1 - now).sqrt() * eps) / now.sqrt()
            x = before.sqrt() * x0 + (1 - before).sqrt() * eps
        return x.float()

    def enlarge(self, prompts, video, eps, noise, steps, scale, level=50):
        """The loop of the upscaler's pipeline on one piece of a clip in [-1, 1]."""
        low = self.upscaler.low_res_scheduler.add_noise(video, eps, torch.tensor([level]))
        config = dict(self.upscaler.scheduler.config) | {"beta_schedule": "linear"}
        scheduler = diffusers.DDIMScheduler.from_config(config)
        scheduler.set_timesteps(steps)
        negatives = ["blur, worst quality"] * len(prompts)
        predict = self.guided(self.vsr, prompts, negatives, scale)
        x = noise
        for t in scheduler.timesteps:
            pred = predict(x, low=low, steps=t, level=torch.tensor([level]))
            x = scheduler.step(pred, t, x).prev_sample
        return x
