"""The command line: parses, calls jobs, prints."""
