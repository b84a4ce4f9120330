"""What building costs as models grow, with random weights: curves, and published shapes under a memory limit."""
