"""Data only: one card (JSON) a published checkpoint, and the weights of the embedded one; read by featx.catalog."""
