"""What a run leaves behind while it trains: its logs, and a live view of them."""
