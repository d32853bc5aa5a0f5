"""Ptychodus with an entry of our own: network, refinement or both, on the input object's grid."""
