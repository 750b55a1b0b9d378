"""Exports students to files for other runtimes; each file is verified before it is named."""
