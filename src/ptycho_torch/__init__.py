"""Ptychography in PyTorch: physics, network, workflows and the surface that Ptychodus selects.

Importing this package loads neither torch nor lightning; each module imports what it needs.
"""
