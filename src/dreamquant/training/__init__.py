"""Training of networks: phases, the step and its views; independent of methods and recovery."""
