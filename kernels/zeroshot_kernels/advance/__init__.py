"""The end of a decode step: what was drawn becomes the newest token of its row."""
