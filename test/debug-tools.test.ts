/** explain, profile and the logs of routes: what they say must be what happens. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { routeLines, watchRoutes } from "../src/debug/routes.ts";
import * as mx from "../src/mx.ts";
import { type Tracer, setTracer } from "../src/schedule/run.ts";
import { asIfUnset } from "./helpers/flags.ts";
import { chooseTestDevice } from "./helpers/gpu-scheduler.ts";
import { skipReason } from "./helpers/vulkan.ts";

// Reports name the kernels that ran.
asIfUnset("MLX_DISABLE");

chooseTestDevice();

/** Kernels that ran, by op. */
function traced(run: () => void): string[] {
  const seen: string[] = [];
  setTracer({ recorded: (node, kernel) => seen.push(`${node.op.name} ${kernel}`) } satisfies Tracer);
  try {
    run();
  } finally {
    setTracer(undefined);
  }
  return seen;
}
/** Op and kernel of each entry of an explanation, for a device. */
function explained(text: string, device: "cpu" | "gpu"): string[] {
  const found: string[] = [];
  let op = "";
  for (const line of text.split("\n")) {
    const head = /^\s*(\w+)[^:]*: .* \[(cpu|gpu)\]$/.exec(line);
    if (head) op = head[1] as string;
    const kernel = new RegExp(`^\\s+(?:${device}|both): ([^;]*)`).exec(line);
    if (kernel) found.push(`${op} ${(kernel[1] as string).startsWith("a view") ? "view" : kernel[1]}`);
  }
  return found;
}

describe("explain", () => {
  test("says what evaluation then does, and evaluates nothing", () => {
    const x = mx.array([[1, 2, 3], [4, 5, 6]]);
    const y = mx.softmax(mx.multiply(mx.transpose(x), mx.array([2, 3])), -1);
    const before = [x.desc.consumers, y.desc.consumers, y.desc.handles, mx.getWrappersCount()];
    const text = mx.explain(y);
    expect(y.desc.storage).toBeUndefined();
    expect([x.desc.consumers, y.desc.consumers, y.desc.handles, mx.getWrappersCount()]).toEqual(before);
    expect(explained(text, "cpu")).toEqual(traced(() => mx.eval(y)));
    expect(mx.explain(y)).toBe("nothing is left to compute");
  });
  test("fused ops are one entry; arrays that a view moved show their strides", () => {
    const x = mx.array([[1, 2, 3], [4, 5, 6]]);
    const text = mx.explain(mx.tidy(() => mx.exp(mx.add(mx.transpose(x), 1))));
    expect(text).toMatch(/^exp with add: float32\(3,2\) strides \(1,3\), float32\(\) -> float32\(3,2\) \[cpu\]$/m);
    expect(explained(text, "cpu").filter((l) => l.includes("generated"))).toEqual(["exp wasm/generated"]);
  });
  test("refusals are given with their reasons", () => {
    vi.stubEnv("MLX_DISABLE", "wasm/norm/*");
    try {
      const text = mx.explain(mx.fast.rmsNorm(mx.ones([4, 4]), mx.ones([4]), 1e-5));
      expect(text).toContain("wasm/norm/rms: disabled by MLX_DISABLE");
      expect(text).toContain("by its definition in other ops");
      // Its definition follows, two steps further in.
      expect(text).toMatch(/^ {4}\w+.*\[cpu\]$/m);
    } finally {
      vi.unstubAllEnvs();
    }
  });
});

describe.skipIf(skipReason)(`on the GPU${skipReason ? ` (skipped: ${skipReason})` : ""}`, () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "mlx-vk-profile-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  afterEach(() => {
    vi.unstubAllEnvs();
    watchRoutes();
  });
  /** A little of everything on the GPU. */
  const work = (): mx.MxArray[] => {
    const scope = mx.stream("gpu");
    try {
      const x = mx.reshape(mx.arange(64 * 32, mx.float32), [64, 32]);
      return mx.tidy(() => [mx.softmax(mx.multiply(mx.transpose(x), 0.01), -1), mx.softmax(x, -1), mx.sum(mx.exp(mx.multiply(x, -0.1)))]);
    } finally {
      scope[Symbol.dispose]();
    }
  };

  test("explain says what evaluation then does", () => {
    const arrays = work();
    const text = mx.explain(arrays);
    expect(explained(text, "gpu")).toEqual(traced(() => mx.eval(arrays)));
    expect(text).toContain("vulkan/generated");
  });
  test("profile counts each launch once and gives times of the GPU", () => {
    const { rows, wallMs, gpuMs } = mx.profile(work);
    const generated = rows.filter((r) => r.kernel.startsWith("vulkan/generated"));
    expect(generated.map((r) => [r.op, r.calls]).sort()).toEqual([["softmax+multiply", 1], ["sum+exp+multiply", 1]]);
    expect(rows.filter((r) => r.op === "softmax" && r.kernel.startsWith("vulkan/softmax/")).reduce((n, r) => n + r.calls, 0)).toBeGreaterThan(0);
    for (const r of generated) expect(r.gpuMs).toBeGreaterThan(0);
    expect(gpuMs).toBeLessThanOrEqual(wallMs);
    expect(rows.every((r) => r.fallbacks === 0)).toBe(true);
    expect(mx.formatProfile({ rows, wallMs, gpuMs })).toMatch(/^sum\+exp\+multiply +vulkan\/generated-rows +1 /m);
    // Nothing is measured any more.
    expect(mx.profile(() => undefined).rows.filter((r) => r.kernel.startsWith("vulkan/"))).toEqual([]);
  });
  test("profile counts fallbacks, waits and copied bytes", () => {
    const x = mx.array(new Array(1000).fill(1));
    mx.eval(x);
    const { rows } = mx.profile(() => {
      const y = mx.add(x, 1, "gpu");
      expect(mx.sum(y, null, false, "cpu").item()).toBe(2000);
    });
    expect(rows.reduce((n, r) => n + r.copiedBytes, 0)).toBe(8000);
    expect(rows.reduce((n, r) => n + r.syncs, 0)).toBeGreaterThan(0);
    const back = mx.profile(() => mx.linalg.qr(mx.array([[1, 2], [3, 4]]), "gpu"));
    expect(back.rows.reduce((n, r) => n + r.fallbacks, 0)).toBeGreaterThan(0);
  });
  test("runs of a recording are measured", () => {
    const scope = mx.stream("gpu");
    let recording: mx.Recording | undefined;
    const x = mx.ones([100, 100]);
    mx.eval(x);
    try {
      const { rows } = mx.profile(() => {
        recording = mx.Recording.evaluate(mx.softmax(mx.add(x, 1), -1));
        expect(recording.refused).toBeUndefined();
        for (let i = 0; i < 5; i++) recording.run();
      });
      expect(rows.find((r) => r.op === "softmax+add")?.calls).toBe(6);
      expect(rows.find((r) => r.op === "softmax+add")?.gpuMs).toBeGreaterThan(0);
    } finally {
      scope[Symbol.dispose]();
      recording?.dispose();
    }
  });
  test("events are written in Chrome's trace format", () => {
    const path = join(folder, "trace.json");
    vi.stubEnv("MLX_VK_PROFILE_TRACE", path);
    mx.profile(work);
    const { traceEvents } = JSON.parse(readFileSync(path, "utf8")) as { traceEvents: { name: string; ph: string; ts: number; dur: number; tid: string }[] };
    const gpu = traceEvents.filter((e) => e.tid === "GPU");
    expect(gpu.filter((e) => e.name.startsWith("vulkan/generated")).length).toBe(2);
    expect(traceEvents.every((e) => e.ph === "X" && e.dur >= 0 && Number.isFinite(e.ts))).toBe(true);
    expect(traceEvents.some((e) => e.tid === "host")).toBe(true);
  });
  test("hits and rejects are printed with shapes, strides and reasons", () => {
    const lines: string[] = [];
    const write = vi.spyOn(process.stderr, "write").mockImplementation((text) => lines.push(String(text)) > 0);
    const rotate = (): void => {
      const scope = mx.stream("gpu");
      try {
        mx.eval(mx.fast.rope(mx.ones([1, 2, 3, 16]), 16, false, 10000, 1, 0));
      } finally {
        scope[Symbol.dispose]();
      }
    };
    try {
      vi.stubEnv("MLX_VK_DEBUG_ROPE_HIT", "1");
      vi.stubEnv("MLX_VK_DEBUG_ROPE_REJECT", "1");
      watchRoutes();
      rotate();
      expect(lines.filter((l) => l.startsWith("VulkanROPE"))).toEqual([expect.stringMatching(/^VulkanROPEHit kernel=vulkan\/rope\/\w+ inputs=\[float32\(1,2,3,16\)\/strides\(96,48,16,1\)\/offset 0\/dense.*params=\{.*\}\n$/)]);
      lines.length = 0;
      vi.stubEnv("MLX_DISABLE", "vulkan/rope/*");
      rotate();
      expect(lines.filter((l) => l.startsWith("VulkanROPE"))).toEqual([expect.stringMatching(/^VulkanROPEReject ran=\S+ reasons=\[vulkan\/rope\/\w+: disabled by MLX_DISABLE.*\] inputs=/)]);
    } finally {
      write.mockRestore();
    }
  });
  test("other families and the CPU's ops say nothing", () => {
    vi.stubEnv("MLX_VK_DEBUG_SDPA_HIT", "1");
    const nodes: string[] = [];
    setTracer({ recorded: (node, kernel, refused) => nodes.push(...routeLines(node, kernel, refused)) });
    mx.eval(mx.softmax(mx.ones([3, 3]), -1));
    setTracer(undefined);
    expect(nodes).toEqual([]);
  });
});
