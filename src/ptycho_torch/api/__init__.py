"""The surface that Ptychodus calls; see ``base_api``."""
