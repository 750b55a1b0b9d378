"""Quantization: integer grids, their ranges, and networks whose layers are on these grids."""
