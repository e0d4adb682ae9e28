"""JSON bodies: bounded, read off the event loop where they are large, and refused with the place of each fault."""
