"""Published figures of the method's paper, on other hardware: never measured here, shown beside what is.

Source: arXiv 2606.09828, 704x1280, 33 frames a chunk.
"""

SECONDS_PER_FRAME = {
    "Mirage": (0.79, 0.25, 0.25, 0.25, 0.25),
    "GEN3C": (2.80, 2.88, 2.88, 2.87, 2.90),
    "Spatia": (4.03, 5.03, 6.32, 6.00, 7.63),
    "VMem": (4.07, 6.19, 6.79, 7.24, 7.25),
}
"""By method, chunks 1 to 5, end to end."""
CACHE_MIB = {
    "Mirage": (0.46, 0.90, 1.36, 1.80, 2.25),
    "GEN3C": (22.3, 43.8),
    "Spatia": (23.4, 47.0, 73.2, 98.4, 124.0),
    "VMem": (18.8, 33.8, 48.8, 63.8, 78.8),
}
"""By method, chunks 1 to 5 (as far as they were told)."""
