"""Baselines: other ways to remember, behind the same protocol as the latent spatial memory.

What the field does instead: a cloud of coloured points (Spatia, Voyager, WonderWorld, GEN3C, VMem), earlier
frames retrieved by their field of view (WorldMem), and the paper's own memory, to which every token is
appended. They run in the same world, with the same generator, so that only the memory differs.
"""
