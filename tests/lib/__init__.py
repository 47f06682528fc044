"""What the layers of tests that run the built programs share: an agent of their own, and real servers around it."""
