"""The state of a training, its step, its evaluations, and the loop around them."""
