"""Methods side by side on one model, batch and data: memory, seconds a step, inference latency."""
