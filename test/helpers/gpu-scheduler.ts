/** The scheduler with a GPU as tests need it: any device will do, software rasterizers included. */
import { loadAddon } from "../../src/backend/vulkan/addon.ts";
import { chooseDevice, rankDevices } from "../../src/backend/vulkan/device.ts";
import { type VulkanCounters, vulkanBackend } from "../../src/backend/vulkan/index.ts";
import { type EvalStats, stats } from "../../src/schedule/run.ts";
import "./vulkan.ts";

/** Names a device for the backend when none is named and only a software rasterizer is there. To be called before the GPU is first asked for. */
export function chooseTestDevice(): void {
  const { addon } = loadAddon();
  const probe = addon?.probe();
  if (process.env["MLX_VK_DEVICE"] || !probe?.ok) return;
  if (chooseDevice(probe.devices, "").index === undefined) process.env["MLX_VK_DEVICE"] = String(rankDevices(probe.devices).software[0]);
}

type Counts = VulkanCounters & EvalStats;
const now = (): Counts => ({ ...vulkanBackend().counters, ...stats });
/** What `work` added to the counters. */
export function counted(work: () => void): Counts {
  const before = now();
  work();
  const after = now();
  return Object.fromEntries(Object.entries(after).map(([k, v]) => [k, v - before[k as keyof Counts]])) as unknown as Counts;
}
