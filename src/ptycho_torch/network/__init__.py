"""The generator network, the physics-informed model, and TensorFlow's weights."""
