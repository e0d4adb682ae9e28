"""What changes the weights and when: optimizers, schedules, averages, early stopping."""
