"""Killable worker processes that verify: a task author needs to know nothing of what is in here."""
