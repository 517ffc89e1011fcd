"""How VideoCrafter's authors sample: a loop over tables, written down plainly."""

import torch


def authors_loop(predict, x, draw, num_steps, end):
    """From noise to latents.

    Args:
        predict: Of the noise in ``x`` at an entry of the table.
        x: Noise.
        draw: Gives noise like ``x``.
        num_steps: A divisor of 1000.
        end: Where the fade of the signal ends; None for a model that was not faded.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - betas, 0)
    fade = torch.ones(1000, dtype=torch.float64)
    if end is not None:
        fade[:400], fade[400:] = torch.linspace(1, end, 400, dtype=torch.float64), end
    visited = [k + 1 for k in range(0, 1000, 1000 // num_steps)]
    before = [0, *visited[:-1]]
    for k, to in reversed(list(zip(visited, before, strict=True))):
        eps = predict(x, k)
        now, then = float(alpha_bar[k]), float(alpha_bar[to])
        clean = (x - (1 - now) ** 0.5 * eps) / now**0.5 / float(fade[k])
        spread = ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        towards = (1 - then - spread**2) ** 0.5 * eps
        x = then**0.5 * float(fade[to]) * clean + towards + spread * draw(x)
    return x
