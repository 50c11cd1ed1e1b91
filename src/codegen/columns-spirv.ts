import type { GpuDevice, GpuLaunch } from "../core/gpu.ts";
import type { RowGroup } from "./rows.ts";
export function columnsLaunch(_group: RowGroup, _device: GpuDevice, _aligned?: readonly boolean[]): GpuLaunch | string {
  return "cannot: not yet";
}
