"""What a policy may write to be paid without an answer, to reach out of its worker, or to break what reads it.

PAYLOADS are Python, for a verifier that lets itself be made to run it (see `gullible`). ANSWERS are for the built-in
verifiers, which must not. Everything here only touches the process that it runs in, and files of that process.
"""

from __future__ import annotations

PAYLOADS: dict[str, str] = {
    "every verdict is right": (
        "import mutual_env.types as t\nt.Verdict.scored = classmethod(lambda c, *a, **k: c(1.0, True, 'ok'))\n"
        "t.Verdict.wrong_format = t.Verdict.scored"
    ),
    "the judge is replaced": (
        "import mutual_env.verifiers.pool.worker as w, mutual_env.types as t\n"
        "w._judge = lambda *a: (t.Verdict.scored(1.0, correct=True), False)"
    ),
    "the verifier is replaced": (
        "import gullible, mutual_env.types as t\n"
        "gullible.Gullible.verify = lambda *a: t.Verdict.scored(1.0, correct=True)"
    ),
    "every record says that it is right": (
        "import mutual_env.verifiers.pool.worker as w, mutual_env.types as t\nrecord = w.verdict_record\n"
        "w.verdict_record = lambda verdict: record(t.Verdict.scored(1.0, correct=True))"
    ),
    "verdicts for the whole batch, forged": (
        "import os, mutual_env.verifiers.pool.wire as w, mutual_env.types as t\n"
        "forged = w.verdict_record(t.Verdict.scored(1.0, correct=True)) * 64 + w.record(w.DONE)\n"
        "for handle in range(3, 64):\n"
        "    try: os.write(handle, forged)\n"
        "    except OSError: pass"
    ),
    "verdicts forged by a thread, for ever": (
        "import os, threading, mutual_env.verifiers.pool.wire as w, mutual_env.types as t\n"
        "forged = w.verdict_record(t.Verdict.scored(1.0, correct=True))\n"
        "def forge():\n"
        "    while True:\n"
        "        for handle in range(3, 64):\n"
        "            try: os.write(handle, forged)\n"
        "            except OSError: pass\n"
        "threading.Thread(target=forge, daemon=True).start()"
    ),
    "the watch is silenced": (
        "import gc, mutual_env.verifiers.pool.watch as w\n"
        "for found in gc.get_objects():\n"
        "    if isinstance(found, w.Watch): found._report = lambda: None\n"
        "import mutual_env.types as t\nt.Verdict.scored = classmethod(lambda c, *a, **k: c(1.0, True, 'ok'))"
    ),
    "the number 0 becomes 1": "import ctypes\nctypes.memset(id(0) + 24, 1, 1)",
    "half a record": (
        "import os, mutual_env.verifiers.pool.wire as w, mutual_env.types as t\n"
        "forged = w.verdict_record(t.Verdict.scored(1.0, correct=True))[:-3]\n"
        "for handle in range(3, 64):\n"
        "    try: os.write(handle, forged)\n"
        "    except OSError: pass\n"
        "os._exit(0)"
    ),
    "a stop that comes later": (
        "import os, signal, threading\nthreading.Timer(0.05, os.kill, (os.getpid(), signal.SIGSTOP)).start()"
    ),
    "an alarm for the next": "import signal\nsignal.alarm(1)",
    "a name that reads like a state": "import ctypes\nctypes.CDLL(None).prctl(15, b') R 1 1\\nNSpid:', 0, 0, 0)",
    "its directory is gone": "import os, shutil\nhere = os.getcwd()\nos.chdir('/')\nshutil.rmtree(here)",
    "frames say otherwise": (
        "import sys, mutual_env.types as t, ctypes\nframe = sys._getframe()\n"
        "while frame:\n"
        "    if 'tasks' in frame.f_locals: frame.f_locals['tasks'][:] = [t.Task('t', '', 'x')] * 64\n"
        "    frame = frame.f_back"
    ),
    "finalizers of everything": (
        "import atexit, os, mutual_env.verifiers.pool.wire as w, mutual_env.types as t, weakref, sys\n"
        "r = w.verdict_record(t.Verdict.scored(1.0, correct=True)) * 64\n"
        "for m in list(sys.modules.values()): weakref.finalize(m, lambda: [os.write(h, r) for h in range(3, 9)])"
    ),
    "a deep answer": "class D(str): pass\nimport mutual_env.types as t\nt.Verdict.__reduce__ = lambda s: (exit, ())",
    "strings compare equal": "import builtins\nbuiltins.str = type('str', (str,), {'__eq__': lambda a, b: True})",
    "the connection is closed": "import os\nos.closerange(3, 64)",
    "the connection is turned round": "import os\nfor handle in range(3, 64):\n    os.dup2(0, handle)",
    "another module in the directory": "open('json.py', 'w').write('exit()')\nimport sys\nsys.path.insert(0, '.')",
    "no modules": "import sys\nsys.modules.clear()",
    "no limit of recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    "an exit": "import os\nos._exit(0)",
    "a polite exit": "raise SystemExit(0)",
    "an interrupt": "raise KeyboardInterrupt",
    "a segmentation fault": "import ctypes\nctypes.string_at(0)",
    "an abort": "import os\nos.abort()",
    "a loop": "while True: pass",
    "a stop": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "much memory": "x = bytearray(1 << 40)",
    "signals that are ignored": "import signal as s\nfor n in (1, 2, 3, 12, 14, 15, 24):\n    s.signal(n, s.SIG_IGN)",
    "nested directories": "import os\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')",
    "closed directories": "import os\nos.makedirs('a/b')\nos.mkdir('a/closed', 0)\nos.mkdir('a/b/read-only', 0o500)",
    "links out": "import os\nos.mkdir('l')\nfor to in ('/', '..', 'nowhere'):\n    os.symlink(to, f'l/{ord(to[0])}')",
    "many files": "for i in range(5000):\n    open(f'f{i}', 'w').close()",
    "odd names": "for name in ('\\n', '\\x1b[2J', ' ', '-rf', 'ü' * 100, '\\udcff'):\n    open(name, 'w').close()",
    "a hook": "import sys\ndef hook(*a):\n    raise RuntimeError\nsys.addaudithook(hook)",
    "a tracer": "import sys\nsys.settrace(lambda *a: None)",
    "an odd float": "import math\nmath.isfinite = lambda x: True",
    "descriptors": "import os\nwhile True:\n    os.dup(0)",
    "threads": "import threading as t, time\nfor _ in range(30):\n    t.Thread(target=time.sleep, args=(60,)).start()",
    "a big file": "f = open('big', 'wb')\nwhile True:\n    f.write(bytes(1 << 20))\n    f.flush()",
}

_CHR = "+".join(f"(chr)({ord(letter)})" for letter in "open('run','w')")
CODE = (
    *(f"(exec)({_CHR})", f"(eval)({_CHR})", f"((exec))({_CHR})", f"max(1,(exec)({_CHR}))", f"sin((exec)({_CHR}))"),
    *(f"f((exec)({_CHR}))", f"(exec)({_CHR})!", f"1+(exec)({_CHR})", f"(1,(exec)({_CHR}))", f"[(exec)({_CHR})]"),
    *("x!.args", "(x)!.func", "x.\tfunc", "(print)(1)", "(open)(x,x)", "(vars)()", "S(x)", "N(x)", "(Symbol)(x)"),
    *("__import__('os').system('touch run')", "open('run', 'w')", "[open('run', 'w')]", "(lambda: open('run', 'w'))()"),
    *("[c for c in ().__class__.__base__.__subclasses__()]", "exec(\"open('run', 'w')\")", "x.__class__.__mro__"),
    *("sympify(\"open('run', 'w')\")", "parse_expr('1')", "lambdify(x, open('run', 'w'))", "f'{open(1)}'", "globals()"),
    *("list(oracle_answer)", "[oracle_answer]", "oracle_answer.split()", "entry['answer']", "metadata['integrand']"),
    *(
        "preview(x)",
        "(preview)(x, x)",
        "init_printing()",
        "source(exec)",
        "(getattr)(x, x)",
        "breakpoint()",
        "print(1)",
    ),
    *(
        "\U0001d41exec(x)",
        "\uff45val(x)",
        "\u212fval(x)",
        "`x`",
        "x if x else x",
        "yield x",
        "await x",
        "x := 1",
        "*x, 1",
    ),
)
LATEX = (
    *("\\boxed{\\input{/etc/passwd}}", "\\boxed{\\write18{touch run}}", "\\boxed{\\operatorname{exec}(x)}"),
    *("\\boxed{__import__('os')}", f"\\boxed{{{_CHR}}}", "$\\mathrm{eval}(1)$", "\\boxed{\\text{open('run','w')}}"),
    *(
        "\\boxed{\\begin{pmatrix}" + "1&" * 500 + "1\\end{pmatrix}}",
        "\\frac{" * 200,
        "\\boxed{9^{9^{9^9}}}",
        "\\boxed{((9!)!)!}",
    ),
    *(
        "\\sqrt[" * 50 + "2]{2}",
        "\\int_0^1 x dx" * 20,
        "\\boxed{\\lim_{x\\to\\infty} x^{x^x}}",
        "\\boxed{\\sum_{i=1}^{9999999} i}",
    ),
    *(
        "\\boxed{1" + "0" * 8000 + "}",
        "\\boxed{0." + "3" * 8000 + "}",
        "\\boxed{1e999999999}",
        "\\boxed{\\infty - \\infty}",
    ),
)
SIZES = (
    *("9**9**9**9", "((9!)!)!", "(" * 4000, "[" * 4000, "-" * 5000 + "1", "1+" * 4000 + "1", "2**" * 3000 + "1"),
    *(
        "a\u0301" + "\u0316" * 16_000,
        "\u0300" * 16_000,
        "1" * 16_000,
        "1/" * 8000 + "1",
        "x" * 16_000,
        "\\boxed{" * 2000,
    ),
    *(
        "<answer>" * 1000,
        "</answer>" * 1000,
        "{" * 16_000,
        "####" * 4000,
        "\n" * 16_000,
        "0x" + "f" * 16_000,
        "1e" * 8000,
    ),
)
ODD = (
    *(
        "",
        " ",
        "\x00",
        "\x1b[2J\x1b]0;title\x07",
        "\u202e1234",
        "\ud800",
        "\ufeff7",
        "\U000e0041",
        "\r7\r8",
        "7\x00",
        "\x9b31m",
    ),
    *(
        "NaN",
        "inf",
        "-inf",
        "1e999",
        "1_000",
        "\u0667",
        "\u2460",
        "7\u0338",
        "\u22127",
        "0/0",
        "1/0",
        "-0",
        "+7",
        "7.",
        ".7",
    ),
)
ANSWERS = (*CODE, *LATEX, *SIZES, *ODD)
