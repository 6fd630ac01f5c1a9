"""Multi-Worker Resource Allocation: who runs what, where and when.

demand.py     what each policy needs in each phase, and what the machines have
allocate.py   the allocation policy: pure code that grants all-or-nothing leases
simulate.py   a discrete-event simulator over that same code
record.py     what happened, or what is predicted
executor.py   the seam a training loop sees, and the serial executor
"""

from learners.resources.executor import Executor, SerialExecutor
from learners.resources.record import Event, Record, Span

__all__ = ["Event", "Executor", "Record", "SerialExecutor", "Span"]
