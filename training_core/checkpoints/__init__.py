"""Complete, verified checkpoints: written beside the training, kept by rule, and where a training goes on."""
