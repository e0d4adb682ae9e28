"""Short measurements on this device, before a training is planned."""
