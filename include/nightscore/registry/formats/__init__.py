"""Model formats, one module each: describe what a file holds, audit it, and only then construct the model."""
