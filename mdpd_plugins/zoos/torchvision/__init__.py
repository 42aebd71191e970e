"""torchvision: its live models; `plugin` is what is loaded first, and it imports no framework."""
