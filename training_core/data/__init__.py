"""From a dataset URI to batches of uint8 images."""
