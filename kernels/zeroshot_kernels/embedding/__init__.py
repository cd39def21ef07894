"""The beginning of a decode step: embeddings of tokens and positions, added in float32."""
