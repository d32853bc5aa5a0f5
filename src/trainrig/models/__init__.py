"""Network parts that experiments share: initialisers, norms, image encoder, attention block."""
