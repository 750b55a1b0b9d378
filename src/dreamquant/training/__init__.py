"""How networks are trained: phases, the step and its views; neither methods nor what recovers."""
