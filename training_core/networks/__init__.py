"""The networks, and what they start from: nothing, published weights, a checkpoint."""
