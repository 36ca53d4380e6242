"""``python -P -m harness.held FAMILY ANSWER``: kilobytes held after runs whose callback answers ANSWER to a tensor.

A process of its own: in one that has lived, what is held may fill pages that were free but resident already.
"""

import ctypes
import sys

from harness.resident import anonymous_kb
from harness.sim_driver import Simulator

PROMPT = "a" * 500
RUNS = 40


def grown_kb(family: str, answer: int) -> int:
    """Growth over RUNS runs for the logits of 500 tokens, after two that warmed the heap up."""
    with Simulator(family) as sim:
        callback = sim.abi.LLMResultCallback(lambda *_: answer)  # does not copy what it is given
        sim.keep.append(callback)
        given, infer = sim.make_input(PROMPT), sim.make_infer(mode=2)
        target = sim.abi.RKLLMCallback(result_callback=callback) if family == "f5" else callback
        handle = ctypes.c_void_p()
        pointer = ctypes.byref(target) if family == "f5" else target
        assert sim.library.rkllm_init(ctypes.byref(handle), ctypes.byref(sim.param), pointer) == 0
        for run in range(2 + RUNS):
            if run == 2:
                before = anonymous_kb()
            assert sim.library.rkllm_run(handle, ctypes.byref(given), ctypes.byref(infer), None) == 0
        grown = anonymous_kb() - before
        sim.library.rkllm_destroy(handle)
    return grown


if __name__ == "__main__":
    print(grown_kb(sys.argv[1], int(sys.argv[2])))
