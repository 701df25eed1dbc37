"""Command line: `mirage-sim rollout`, `info`, `replay`, `repair`, `train`, `eval` and `bench`."""
