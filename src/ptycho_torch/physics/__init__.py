"""Far-field ptychography: forward model, scales, canvas, image metrics, simulated scans."""
