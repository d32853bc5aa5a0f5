"""One training: its inputs, steps and loop, its report, and the workflow around them."""
