"""Ways to recover accuracy: training, batch-norm re-estimation, reconstruction, closed forms."""
