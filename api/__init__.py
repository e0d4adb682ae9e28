"""The control plane: the HTTP API, the book, and the control loops. The only code that knows the database."""
