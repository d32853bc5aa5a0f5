"""One training: Lightning, callbacks, identity, report and the workflow around them."""
