"""Offline training of TraceGrad checkpoints; never imported by the service."""
