"""The store of checkpoints and artifacts, the credentials of places, and how often a request is tried."""
