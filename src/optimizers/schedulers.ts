/** Learning rate schedules: functions of the step, a 0-d integer array. */
import { core as mx, type MxArray } from "../index.ts";
import type { Schedule } from "./optimizer.ts";

/** init * decayRate^step. */
export const exponentialDecay = (init: number, decayRate: number): Schedule => (step) => mx.multiply(mx.power(decayRate, step), init);

function requireSteps(schedule: string, name: string, steps: number): void {
  if (!(steps >= 1)) throw new Error(`[${schedule}] ${name} must be at least 1, got ${steps}`);
}

/** init * decayRate^floor(step / stepSize). */
export function stepDecay(init: number, decayRate: number, stepSize: number): Schedule {
  requireSteps("stepDecay", "stepSize", stepSize);
  return (step) => mx.multiply(mx.power(decayRate, mx.floorDivide(step, stepSize)), init);
}

/** From init to end along half a cosine, in `decaySteps` steps. */
export function cosineDecay(init: number, decaySteps: number, end = 0): Schedule {
  requireSteps("cosineDecay", "decaySteps", decaySteps);
  return (step) => {
    const at = mx.minimum(step, decaySteps);
    const decay = mx.multiply(mx.add(mx.cos(mx.multiply(at, Math.PI / decaySteps)), 1), 0.5);
    return mx.add(mx.multiply(decay, init - end), end);
  };
}

/** One schedule after the other: schedule i + 1 starts, with step 0, at boundaries[i]. Throws unless there is one boundary fewer than schedules. */
export function joinSchedules(schedules: readonly ((step: MxArray) => MxArray | number)[], boundaries: readonly number[]): Schedule {
  if (schedules.length === 0) throw new Error("[joinSchedules] at least one schedule is needed, got none");
  if (schedules.length !== boundaries.length + 1) throw new Error(`[joinSchedules] needs one boundary fewer than schedules, got ${boundaries.length} boundaries and ${schedules.length} schedules`);
  return (step) => {
    const [first, ...rest] = schedules as [Schedule, ...Schedule[]];
    return rest.reduce<MxArray>((output, schedule, i) => {
      const boundary = boundaries[i] as number;
      return mx.where(mx.less(step, boundary), output, schedule(mx.subtract(step, boundary)));
    }, mx.array(first(step)));
  };
}

/** From init to end along a line, in `steps` steps. */
export function linearSchedule(init: number, end: number, steps: number): Schedule {
  requireSteps("linearSchedule", "steps", steps);
  return (step) => mx.add(mx.multiply(mx.minimum(step, steps), (end - init) / steps), init);
}
