"""Loss terms, one idea a file, one contract: ``term(step)`` returns a scalar tensor."""
