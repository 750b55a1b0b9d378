"""What comes out: integer grids, their ranges, and networks whose layers live on them."""
