"""What the papers say is wrong with synthetic images, as numbers and pictures of any run."""
