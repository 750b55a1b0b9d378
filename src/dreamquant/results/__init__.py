"""What a run leaves behind: one folder with its manifest, packed integers and samples."""
