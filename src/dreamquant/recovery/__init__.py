"""How accuracy comes back: training, re-estimation, reconstruction, closed forms."""
