/** `tune`: measures which kernels are fastest for the work of a function on this machine, and keeps the outcome for later processes. */
import type { DeviceType } from "../core/device.ts";
import { evalArrays } from "../schedule/run.ts";
import { tableOf } from "../schedule/tune.ts";
import { type TuneOptions, type TuneRow, Tuner, startTuner } from "../schedule/tune-search.ts";

export type { TuneOptions, TuneRow } from "../schedule/tune-search.ts";
export interface TuneReport {
  readonly rows: readonly TuneRow[];
  /** Seconds that measuring took. */
  readonly seconds: number;
  /** Where the choices are kept; none when MLX_VK_CACHE is 0 or nothing was measured. */
  readonly files: readonly string[];
}

/**
 * Runs `work`, evaluates the arrays that it returns (or resolves to), and measures for each op that is evaluated meanwhile which of its kernels is fastest, and with which
 * parameters: for each bucket of near sizes once. Choices are used from then on, by this process and, from a file, by later ones (MLX_TUNE). They change which kernel
 * runs, so results may differ by the rounding of sums.
 * @param options `seconds`: most time to spend on measuring (default 30); `again`: also where a choice is known
 */
export async function tune(work: () => unknown, options: TuneOptions = {}): Promise<TuneReport> {
  const tuner = new Tuner(options);
  const stop = startTuner(tuner);
  try {
    evalArrays(await work());
  } finally {
    stop();
  }
  const devices = new Set<DeviceType>(tuner.rows.map((r) => r.device));
  const files = [...devices].map((d) => tableOf(d).file).filter((f) => f !== undefined);
  return { rows: tuner.rows, seconds: tuner.spent / 1000, files };
}
