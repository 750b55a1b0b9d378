"""Sources of images: generators, pixels, latents, procedural and given images; their targets."""
