"""The service on one machine: embedded PostgreSQL and Valkey, api, control and one worker, started and stopped together."""
