"""What a user asks for: quantize, distill, report on it; how a run is begun, watched, saved."""
