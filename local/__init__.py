"""The service on one machine: embedded PostgreSQL and Valkey, api, control, one worker, started and ended together."""
