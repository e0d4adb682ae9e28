"""One optimizer step: its pieces, its precision, and what happens when memory runs out."""
