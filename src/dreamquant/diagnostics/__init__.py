"""Measures and plots, for any run, the problems of synthetic images that papers describe."""
