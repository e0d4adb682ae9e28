"""A library for tasks that see images: decoding, augmentation, packing, batches, networks."""
