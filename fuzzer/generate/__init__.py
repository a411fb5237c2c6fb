"""Making cases from a seed: `generator.generate` is the whole interface."""
