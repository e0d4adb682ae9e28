"""Which devices, ranks, precision and batch sizes a training uses, and what that will take. Torch-free."""
