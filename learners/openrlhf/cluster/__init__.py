"""OpenRLHF's actors on a Ray cluster."""
