"""Short measurements of this host for the planner."""
