"""The report: a pure function of result folders, as one HTML file that needs nothing else."""
