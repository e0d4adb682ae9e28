"""The service under load and under attack: before and after, in one table, made by one command."""
