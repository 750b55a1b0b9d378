"""Loss terms, one idea in each file; ``term(step)`` returns a scalar tensor."""
