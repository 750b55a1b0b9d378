"""Runs any method: the alternating game of generator and student."""
