"""What differs between kinds of jobs: network, loss and metrics."""
