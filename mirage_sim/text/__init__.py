"""Text: prompts as the full-size model's backbone attends to them."""

from mirage_sim.text.encoder import TextEncoder
from mirage_sim.text.stored import fit_context, load_embeddings, save_embeddings

__all__ = ["TextEncoder", "fit_context", "load_embeddings", "save_embeddings"]
