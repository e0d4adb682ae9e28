"""Who is answered, and how soon: connections, rates of keys and addresses, and what is shed under overload."""
