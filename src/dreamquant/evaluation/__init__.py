"""Evaluation: accuracy and agreement on images, with intervals; sensitivity of each quantizer."""
