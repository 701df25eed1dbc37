"""What the world model is measured by: loops, realism, long walks, and the metrics they share."""
