"""Pure camera and pose geometry, batch-first, float32."""
