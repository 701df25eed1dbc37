"""The networks: codec, generator (backbone, memory branch, LoRA), sampler, depth head, and their bundle."""
