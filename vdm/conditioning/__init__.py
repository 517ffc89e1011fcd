"""What a network is told besides the noisy latents."""
