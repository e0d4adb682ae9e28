"""How a training becomes processes, and what an attempt does from its start to its end."""
