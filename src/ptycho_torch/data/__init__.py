"""Scans in other formats, as training batches, and staged on disk."""
