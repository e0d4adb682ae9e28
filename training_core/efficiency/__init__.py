"""Where the time of an attempt went, what held it back, and what to do about it."""
