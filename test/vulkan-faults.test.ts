/**
 * What goes wrong on other machines: no loader, no driver, no device, devices that lack or report something else, memory that runs out, devices that are
 * lost. Each case is a process of its own; test/fixtures/vulkan-shim.cc stands between the addon and the real loader.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { addon, skipReason, vulkanRequired } from "./helpers/vulkan.ts";

const root = join(import.meta.dirname, "..");
const addonPath = join(root, "native", "build", "Release", "mlx_vk.node");
const realLoader = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"].map((f) => join(f, "libvulkan.so.1")).find(existsSync);
const compiler = [process.env["CXX"], "c++", "g++", "clang++"].find((c) => c && spawnSync(c, ["--version"]).status === 0);
const why = skipReason ?? (realLoader === undefined ? "no libvulkan.so.1 in the usual places" : compiler === undefined ? "no C++ compiler" : undefined);
const probe = why === undefined ? addon.probe() : undefined;
/** For cases in which the device itself must lack what the shim adds, or must be no real GPU: device 0 must be a software rasterizer, like lavapipe. */
const softwareTest = test.skipIf(!(probe?.ok === true && probe.devices[0]?.type === 4));
if (why !== undefined && vulkanRequired) throw new Error(`MLX_REQUIRE=vulkan: ${why}`);

const folder = mkdtempSync(join(tmpdir(), "mlx-vk-faults-"));
const shimFolder = join(folder, "shim");
const brokenFolder = join(folder, "broken");
beforeAll(() => {
  if (why !== undefined) return;
  for (const f of [shimFolder, brokenFolder]) mkdirSync(f);
  for (const name of ["libvulkan.so.1", "libvulkan.so"]) writeFileSync(join(brokenFolder, name), "not a library");
  const built = spawnSync(compiler as string, ["-std=c++17", "-shared", "-fPIC", "-o", join(shimFolder, "libvulkan.so.1"), join(root, "test", "fixtures", "vulkan-shim.cc"), "-ldl"], { encoding: "utf8" });
  expect(built.stderr).toBe("");
});
afterAll(() => rmSync(folder, { recursive: true }));

type Environment = Record<string, string>;
const shim = (changes: string): Environment => ({ SHIM: changes, SHIM_REAL: realLoader as string, LD_LIBRARY_PATH: shimFolder });

/** Runs a script that prints one line of JSON; `log` is what the shim saw. */
function child(args: string[], env: Environment): { out: unknown; log: string[] } {
  const run = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8", timeout: 60_000, env: { ...process.env, MLX_VK_DEVICE: "", DEVICE: "", ...env } });
  if (run.status !== 0) throw new Error(`ended with ${run.status ?? run.signal}: ${run.stdout}${run.stderr}`);
  const lines = run.stderr.split("\n");
  expect(lines.filter((l) => l !== "" && !l.startsWith("shim: "))).toEqual([]);
  return { out: JSON.parse(run.stdout.trim().split("\n").at(-1) as string), log: lines.filter((l) => l.startsWith("shim: ")).map((l) => l.slice(6)) };
}
/** With the addon as `a`, its device open, and `code(f)` for the code of an error; the script returns a value. */
const onAddon = (changes: string, script: string): { out: unknown; log: string[] } =>
  child(
    ["-e", `const a = require(${JSON.stringify(addonPath)}); const code = (f) => { try { f(); return "" } catch (e) { return e.code } };
      (async () => { const info = a.openDevice(0); ${script} })().then((v) => console.log(JSON.stringify(v)), (e) => { console.error(e); process.exitCode = 1 });`],
    shim(changes),
  );

describe.skipIf(why !== undefined)(`what devices report${why ? ` (skipped: ${why})` : ""}`, () => {
  const features = "return [info.features.cooperativeMatrix, info.features.bfloat16, info.cooperativeMatrix.length]";
  test("cooperative matrices and bfloat16 are turned on where they are there, with the memory model", () => {
    expect(onAddon("cooperative_matrix,shader_bfloat16", features)).toEqual({
      out: [true, true, 2],
      log: ["device memoryModel 1 matrix 1 0 bfloat16 1 1 1 VK_KHR_cooperative_matrix VK_KHR_shader_bfloat16"],
    });
  });
  softwareTest("either alone", () => {
    expect(onAddon("cooperative_matrix", features)).toEqual({ out: [true, false, 2], log: ["device memoryModel 1 matrix 1 0 VK_KHR_cooperative_matrix"] });
    expect(onAddon("shader_bfloat16", features)).toEqual({ out: [false, false, 0], log: ["device memoryModel 1 bfloat16 1 1 1 VK_KHR_shader_bfloat16"] });
  });
  test("bfloat16 without matrices of it is not bfloat16; matrices without the memory model are no matrices", () => {
    expect(onAddon("cooperative_matrix,shader_bfloat16,no_bfloat_matrix", features).out).toEqual([true, false, 2]);
    expect(onAddon("cooperative_matrix,shader_bfloat16,no_memory_model", features)).toMatchObject({ out: [false, false, 0], log: [expect.stringMatching(/^device memoryModel 0 /)] });
  });

  const kinds = "for (const kind of [0, 1, 2, 3]) a.createBuffer(256, kind); return [info.directUpload, info.unified]";
  const types = (log: string[]): string[] => log.filter((l) => l.startsWith("allocate")).map((l) => l.split(" ").at(-1) as string);
  softwareTest("each kind of buffer lies in its kind of memory", () => {
    const bar = onAddon("types", kinds);
    expect([bar.out, types(bar.log)]).toEqual([[true, false], ["0", "1", "2", "4"]]);
  });
  softwareTest("without memory on the device that the host sees, kind 3 lies where kind 1 does; also when there is none left", () => {
    const none = onAddon("types,no_bar", kinds);
    expect([none.out, types(none.log)]).toEqual([[false, false], ["0", "1", "2", "1"]]);
    const full = onAddon("types,bar_full", kinds);
    expect([full.out, types(full.log)]).toEqual([[true, false], ["0", "1", "2", "4", "1"]]);
  });
});

describe.skipIf(why !== undefined)("faults of the device", () => {
  test("memory that runs out is an error, and can be used again when some was given back", () => {
    const { out } = onAddon(
      `memory=${3 << 20}`,
      `const ids = []; const add = () => code(() => ids.push(a.createBuffer(1 << 20, 2)));
       const codes = [add(), add(), add(), add()]; for (const id of ids.splice(0)) a.destroyBuffer(id); return [...codes, add()]`,
    );
    expect(out).toEqual(["", "", "", "OUT_OF_DEVICE_MEMORY", ""]);
  });
  test("more than the device allows", () => {
    expect(onAddon("too_many", "return [code(() => a.createBuffer(256, 0)), code(() => a.createBuffer(info.limits.bufferBytes + 1, 0))]").out).toEqual(["OUT_OF_DEVICE_MEMORY", "BAD_RANGE"]);
    expect(onAddon("", "const c = code(() => a.createBuffer(Math.min(info.limits.bufferBytes, 2 ** 48), 0)); return ['', 'OUT_OF_DEVICE_MEMORY', 'OUT_OF_HOST_MEMORY'].includes(c)").out).toBe(true);
  });
  const work = "const b = a.createBuffer(1 << 22, 2); const fill = Uint32Array.from([8, b, 0, 0, 1 << 22, 0, 7]); const submit = () => a.submit(fill, fill.length);";
  const again = "a.closeDevice(); a.openDevice(0); const n = a.createBuffer(256, 2); const v = a.submit(Uint32Array.from([8, n, 0, 0, 256, 0, 9]), 7); a.waitSync(v); const r = new Uint32Array(1); a.readBuffer(n, 0, r);";
  test("a device that is lost at a submission: all say so, and a new one works", () => {
    const { out } = onAddon("lost=2", `${work} const codes = [code(submit), code(submit), code(submit), code(submit), code(() => a.createBuffer(256, 0)), code(() => a.waitSync(1))]; ${again} return [codes, r[0]]`);
    expect(out).toEqual([["", "", "DEVICE_LOST", "DEVICE_LOST", "DEVICE_LOST", "DEVICE_LOST"], 9]);
  });
  test("a device that is lost while it is waited for", () => {
    const { out } = onAddon(
      "lost_waiting=3",
      `${work} const values = [submit(), submit(), submit()];
       const waits = await Promise.all(values.map(async (v) => { try { await a.waitAsync(v); return "" } catch (e) { return e.code } }));
       const after = [code(() => a.waitSync(3)), code(submit)]; ${again} return [waits, after, r[0]]`,
    );
    expect(out).toEqual([["DEVICE_LOST", "DEVICE_LOST", "DEVICE_LOST"], ["DEVICE_LOST", "DEVICE_LOST"], 9]);
  });
  test("a device is opened and closed 20 times in one process, probed in between, and works each time; its driver stays loaded", () => {
    const script = `
      const a = require(${JSON.stringify(addonPath)}), fs = require("fs");
      const libraries = () => process.platform !== "linux" ? [] : fs.readFileSync("/proc/self/maps", "utf8").split("\\n").map((l) => l.split(/\\s+/)[5]).filter((f) => /\\.so/.test(f));
      const seen = [], used = new Set(), r = new Uint32Array(1);
      for (let i = 0; i < 20; i++) {
        const { ok, message } = a.probe();
        if (!ok) throw new Error("time " + i + ": " + message);
        a.openDevice(0);
        const b = a.createBuffer(256, 2);
        a.waitSync(a.submit(Uint32Array.from([8, b, 0, 0, 256, 0, i]), 7));
        a.readBuffer(b, 0, r);
        seen.push(r[0]);
        for (const f of libraries()) used.add(f);
        a.closeDevice();
      }
      const left = new Set(libraries());
      console.log(JSON.stringify([seen, [...used].filter((f) => !left.has(f))]));`;
    expect(child(["-e", script], {}).out).toEqual([Array.from({ length: 20 }, (_, i) => i), []]);
  });
  test("two processes on one device at once", async () => {
    const script = (mark: number): string => `
      const a = require(${JSON.stringify(addonPath)});
      a.openDevice(0);
      const b = a.createBuffer(1 << 24, 2), out = new Uint32Array(1 << 22);
      for (let i = 0; i < 20; i++) {
        const words = Uint32Array.from([8, b, 0, 0, 1 << 24, 0, ${mark} + i]);
        a.waitSync(a.submit(words, words.length));
        a.readBuffer(b, 0, out);
        if (out.some((x) => x !== ${mark} + i)) throw new Error("another process's data");
      }`;
    const ends = await Promise.all(
      [1000, 2000].map((mark) => new Promise((resolve) => spawn(process.execPath, ["-e", script(mark)], { stdio: ["ignore", "inherit", "inherit"] }).once("exit", (status, signal) => resolve(signal ?? status)))),
    );
    expect(ends).toEqual([0, 0]);
  });
});

describe.skipIf(why !== undefined)("arrays on a device that fails", () => {
  const file = join(folder, "arrays.mts");
  /** Four sums on the GPU, and the sum of an array that was made before them: numbers, or messages of errors. */
  function sums(changes: string): unknown[] {
    writeFileSync(
      file,
      `import { core as mx } from ${JSON.stringify(join(root, "src", "index.ts"))};
       const attempt = (f) => { try { return f(); } catch (e) { return e.message; } };
       const kept = mx.add(mx.arange(1000), 0);
       attempt(() => mx.eval(kept));
       const out = [0, 1, 2, 3].map((i) => attempt(() => mx.sum(mx.add(mx.ones([100]), i)).item()));
       console.log(JSON.stringify([...out, attempt(() => mx.sum(kept).item())]));`,
    );
    // The self-check of a GPU would be the work that meets the fault.
    return child(["--import", "tsx", file], { ...shim(changes), DEVICE: "gpu", MLX_VK_DEVICE: "0", MLX_VK_SELF_CHECK: "0" }).out as unknown[];
  }
  test("none", () => expect(sums("")).toEqual([100, 200, 300, 400, 499500]));
  test.each(["lost=2", "lost_waiting=2"])("%s: an error that says so; the next use opens the device again; what was only there is gone", (how) => {
    const out = sums(how);
    const gone = out.findIndex((x) => typeof x === "string");
    expect(out.map((x, i) => (i === gone || i === 4 ? "" : x))).toEqual([100, 200, 300, 400, 499500].map((x, i) => (i === gone || i === 4 ? "" : x)));
    for (const i of [gone, 4]) expect(out[i]).toMatch(/^\[vulkan\] the device .+ was lost \(.+ failed with VkResult -4\); arrays that only it held are gone, the next use opens it again$/);
  });
  test("small arrays fit where no whole block of memory does", () => expect(sums(`memory=${70 << 20}`)).toEqual([100, 200, 300, 400, 499500]));
  test("no memory at all is an error with sizes", () => {
    for (const x of sums("memory=1000")) expect(x).toMatch(/^\[memory\] out of device memory: \d+ bytes requested, \d+ in use, \d+ kept for later \(vkAllocateMemory failed with VkResult -2\)$/);
  });
});

describe.skipIf(why !== undefined)("no GPU: one reason everywhere, the CPU goes on", () => {
  const script = `
    import { core as mx } from ${JSON.stringify(join(root, "src", "index.ts"))};
    const attempt = (f) => { try { f(); return "no error" } catch (e) { return e.message } };
    const cpu = mx.stream(mx.cpu);
    const sum = mx.add(mx.array([1, 2]), 1).tolist();
    cpu[Symbol.dispose]();
    console.log(JSON.stringify({ sum, reason: mx.systemInfo().vulkan.reason, error: attempt(() => mx.setDefaultDevice("gpu")) }));`;
  const file = join(folder, "reason.mts");
  /** The reason; that the error of a wish for the GPU holds it, and that the CPU works, is checked. */
  function reason(env: Environment): string {
    writeFileSync(file, script);
    const { out } = child(["--import", "tsx", file], env) as { out: { sum: number[]; reason: string; error: string } };
    expect(out.sum).toEqual([2, 3]);
    expect(out.error).toBe(`[setDefaultDevice] the gpu device is not available: ${out.reason}`);
    expect(out.reason).not.toContain("\n");
    return out.reason;
  }
  const remedy = "(?:apt install|dnf install|pacman -S|install) .+";
  test("no loader", () => expect(reason({ LD_LIBRARY_PATH: brokenFolder })).toMatch(new RegExp(`^no Vulkan loader is installed; ${remedy}$`)));
  test("no driver", () => {
    const nothing = join(folder, "none.json");
    // Newer loaders start without a driver and list no device.
    expect(reason({ VK_DRIVER_FILES: nothing, VK_ICD_FILENAMES: nothing })).toMatch(new RegExp(`^(the Vulkan loader finds no driver|Vulkan finds no device); ${remedy}$`));
    expect(reason(shim("nodriver"))).toMatch(new RegExp(`^the Vulkan loader finds no driver; ${remedy}$`));
  });
  test("no device", () => expect(reason(shim("nodevice"))).toMatch(new RegExp(`^Vulkan finds no device; ${remedy}$`)));
  softwareTest("only a software rasterizer", () => expect(reason(shim("")).split(";")[0]).toMatch(/^Vulkan finds only a software rasterizer \(0 .+\)$/));
  test("only a device of an older Vulkan", () => expect(reason(shim("old,discrete"))).toMatch(/ offers only Vulkan 1\.2, 1\.3 is needed; update its driver$/));
  test("a name that no device has", () => expect(reason({ ...shim(""), MLX_VK_DEVICE: "no such" })).toMatch(/^MLX_VK_DEVICE=no such names no device; there is 0 .+$/));
  test("a loader that fails", () => expect(reason(shim("nomemory"))).toMatch(/^Vulkan does not start: vkCreateInstance failed with VkResult -1$/));
});
