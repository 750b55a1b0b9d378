"""Results of a run: one folder with its manifest, packed integers and samples."""
