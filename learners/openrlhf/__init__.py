"""Policies trained by OpenRLHF's own classes. Their options and makers import nothing heavy."""
