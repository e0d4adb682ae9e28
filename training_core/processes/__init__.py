"""How the processes of a training start, what they are to their host, and how they end with who started them."""
