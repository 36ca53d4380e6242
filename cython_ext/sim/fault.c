/* When faults fire: a fault fires at most once a run, in its phase, once enough tokens have been generated, and while
 * its `times` last. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

/* error: rkllm_run returns -1 and nothing is called back.  errcb: RKLLM_RUN_ERROR is called back, then -1 is returned,
 * as the vendor's does when a job on the NPU fails. */
static sim_outcome fire(const sim_fault *fault, sim_faults *faults) {
    if (!sim_count_once(fault->key, fault->times)) return SIM_GO;
    switch (fault->kind) {
    case FAULT_SLOW: faults->slow_ms += (double)fault->ms; break;
    case FAULT_UTF8: faults->raw_utf8 = true; break;
    case FAULT_NOFINISH: faults->no_finish = true; break;
    case FAULT_ERROR: sim_log('E', "failed to submit task: %s", fault->text); return SIM_FAIL;
    case FAULT_ERRCB: sim_log('E', "failed to submit task: %s", fault->text); return SIM_FAIL_CALLBACK;
    default: sim_misbehave(fault);
    }
    return SIM_GO;
}

sim_outcome sim_faults_at(sim_faults *faults, sim_fault_phase phase, int64_t count) {
    sim_outcome outcome = SIM_GO;
    for (size_t i = 0; i < faults->n && outcome == SIM_GO; i++) {
        sim_fault *fault = &faults->at[i];
        bool early = phase != AT_PREFILL && count < fault->after;
        if (fault->fired || fault->phase != phase || early) continue;
        fault->fired = true;
        outcome = fire(fault, faults);
    }
    return outcome;
}

sim_outcome sim_armed_faults(sim_fault_phase phase) {
    sim_outcome outcome = SIM_GO;
    char text[SIM_MARKER];
    sim_fault fault;
    sim_faults effects = {0};
    if (!sim_faults_enabled()) return SIM_GO;
    for (int i = 0; i < SIM_FAULTS && outcome == SIM_GO && sim_disarm(phase, text); i++)
        if (sim_parse_marker(text, strlen(text), &fault)) outcome = fire(&fault, &effects);
    if (effects.slow_ms > 0) sim_sleep_until(sim_now() + (int64_t)(effects.slow_ms * sim_time_scale() * 1e6));
    return outcome;
}
