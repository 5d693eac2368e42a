"""Offline stores: where batch results come from and where sampled real-time results go."""
