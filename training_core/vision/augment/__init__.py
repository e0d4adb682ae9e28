"""Augmentation on uint8 as a function of seed, epoch and draw: whatever the batch, the rank or the thread."""
