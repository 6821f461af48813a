"""Strict doubles of providers' protocols: what is valid is read from the types of the official client libraries."""
