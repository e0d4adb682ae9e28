"""What control plane, workers and trainings say to each other: spec, reports, run dir, messages, errors. Torch-free."""
