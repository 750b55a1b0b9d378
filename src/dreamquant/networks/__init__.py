"""What comes in: networks found, built, loaded and looked into."""
