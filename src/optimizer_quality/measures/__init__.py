"""What is measured on trained networks; each function states its formula and its source."""
