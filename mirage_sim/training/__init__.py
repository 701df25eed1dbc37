"""One command per stage: data, codec, depth, backbone, branch, lora, export."""
