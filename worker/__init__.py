"""The worker: one per host. It takes tickets, supervises training processes and reports; it imports no torch."""
