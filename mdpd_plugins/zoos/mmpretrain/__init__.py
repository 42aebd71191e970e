"""The MMPretrain zoo: `plugin` is what is loaded first, and it imports no framework."""
