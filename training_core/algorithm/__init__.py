"""What is minimised and how: optimizers, schedules, averages, early stopping, distillation."""
