"""From a model or none to an object: inference, refinement, both, and saved models."""
