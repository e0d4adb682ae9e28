"""Datasets that clients upload: read as they come, checked, hashed, written into the store; never whole in memory."""
