"""Rendered clips for pretraining: figures, textures, cameras and capture, in batches on one device."""
