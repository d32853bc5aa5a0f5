"""The canonical configuration, execution settings, flags' texts, and the flat legacy dictionary."""
