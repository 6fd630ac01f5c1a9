"""Multi-Worker Resource Allocation: who runs what, where and when.

cards.py       the GPUs of this machine
device.py      a GPU, or the CPUs of a node
demand.py      what each policy needs in each phase, and what the machines have
machines.py    what is free where
allocate.py    the allocation policy: pure code that grants all-or-nothing leases
limits.py      how long a call may take before it counts as hung
hardware.py    GPUs by their data sheets;  shapes.py  models by their sizes;  estimate.py  seconds and memory from both
remedy.py      why a demand does not fit, and the nearest change with which it would
simulate.py    a discrete-event simulator over that same code;  failures.py  what goes wrong in it
record.py      what happened, or what is predicted;  gantt.py  the picture;  plan.py  the `plan` command
executor.py    the seam a training loop sees, and the serial executor;  testing.py  what every executor must do
residents.py   whose state is on its device, and who makes room
leased.py      calls under leases, which the next three share
threads.py     policies in threads of this process
processes.py   in processes of this machine;  on_ray.py  on a Ray cluster
worker.py      the side of the worker;  remote.py  the side of the loop: restarts, and state given back
pace.py        asynchronous rounds, within a staleness
"""

from learners.resources.demand import Demand, Needs, Node, Patience, Rounds, Supply
from learners.resources.executor import Executor, SerialExecutor
from learners.resources.on_ray import RayExecutor
from learners.resources.pace import Halves, Learnt, at_own_pace
from learners.resources.processes import ProcessExecutor
from learners.resources.record import Event, Span, UsageRecord
from learners.resources.threads import ThreadExecutor

__all__ = [
    "Demand",
    "Event",
    "Executor",
    "Halves",
    "Learnt",
    "Needs",
    "Node",
    "Patience",
    "ProcessExecutor",
    "RayExecutor",
    "Rounds",
    "SerialExecutor",
    "Span",
    "Supply",
    "ThreadExecutor",
    "UsageRecord",
    "at_own_pace",
]
