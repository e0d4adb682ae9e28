"""What is measured of an image, and what is said of all of them."""
