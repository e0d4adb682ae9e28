"""Images to one of several classes: network, loss, metrics, and what it may start from."""
