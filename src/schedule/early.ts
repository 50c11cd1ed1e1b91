/** Work that starts while the graph behind it is still being made. */
import { defaultDevice } from "../core/device.ts";
import { env } from "../core/env.ts";
import { isTransforming } from "../core/trace.ts";
import { descsOf, evaluate, isEvaluating } from "./run.ts";

/** True when long graphs should be started in parts: on the GPU, which would wait for the host otherwise. Functions that a transform records must stay whole. */
export const startsEarly = (): boolean => defaultDevice().type === "gpu" && env("MLX_VK_EARLY_START") && !isTransforming() && !isEvaluating();

/** Hands the work of the arrays in the trees to the device and returns at once; whoever reads them waits. Arrays that a transform traces are left alone. */
export function start(...trees: unknown[]): void {
  const descs = descsOf(trees);
  if (descs.some((d) => d.traced)) return;
  evaluate(descs, true);
}
