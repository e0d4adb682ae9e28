"""Short trainings beside the real one: what they tell about labels and augmentation."""
