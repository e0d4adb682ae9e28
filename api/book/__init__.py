"""The book: tables, the one writer of statuses, and the reads. Nothing here commits; callers own the transaction."""
