"""The latent compressor: video to latents of unit variance and back."""
