"""Students as files that other runtimes run, each verified before it gets its name."""
