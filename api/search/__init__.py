"""What a search does next: plain functions over a view of its trials, without a session, a clock or a thread."""
