"""The networks that are quantized: found, built, loaded and observed."""
