"""Whether this machine can do what is asked of it: each check says what it found, and what to do where that is bad.

extras    which optional parts are installed
checks    versions, processor, GPU, memory, disk, locks, the verifier pool, what its workers are kept from
probes    what the pool's workers run for the last two
"""
