"""Our methods beside peft's LoRA and QLoRA in transformers' own Trainer: same model, batches and data."""
