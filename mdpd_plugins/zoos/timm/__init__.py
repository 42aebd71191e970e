"""timm: its live models, in its own format; `plugin` is what is loaded first, and it imports no framework."""
