"""Short trainings before and beside the real one: rates, labels, augmentation, probes of the host."""
