"""Jobs of a user: quantize, distill, dream, sweep; how a run is started, observed and saved."""
