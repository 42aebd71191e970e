"""How a live network is read: its blocks, their order and layout, and what passes between them."""
