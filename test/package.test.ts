/** What users get: the packed package, installed into an empty folder, as ES module, as CommonJS and as a command; then with the addon built. Needs `npm run build` (done by `npm ci`). */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "mlx-vk-package-"));
const home = join(folder, "node_modules", "mlx-vk");
/** PATH with Node and a shell and nothing else: no CMake, no compiler. */
const bare = join(folder, "bin");
const vulkanRequired = (process.env["MLX_REQUIRE"] ?? "").split(",").includes("vulkan");

/** Runs a program in the folder: standard output and standard error together. */
function run(program: string, args: string[], env: Record<string, string> = {}, cwd = folder): string {
  const done = spawnSync(program, args, { cwd, encoding: "utf8", env: { ...process.env, MLX_VK_DEVICE: "", ...env } });
  if (done.status !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${done.status ?? done.signal}: ${done.stdout}${done.stderr}`);
  return `${done.stdout}${done.stderr}`;
}
const where = (program: string): string => execFileSync("sh", ["-c", `command -v ${program}`], { encoding: "utf8" }).trim();
const node = (args: string[], env: Record<string, string> = {}): string => run(process.execPath, args, env).trim();
const info = (env: Record<string, string> = {}): { vulkan: { device?: string; reason?: string } } => JSON.parse(node([join(folder, "node_modules", ".bin", "mlx-vk"), "info", "--json"], env).split("\n").at(-1) as string) as never;

beforeAll(() => {
  expect(existsSync(join(root, "dist", "index.js")), "dist/ is missing: run npm run build").toBe(true);
  mkdirSync(bare);
  for (const program of ["npm", "sh", "env"]) symlinkSync(where(program), join(bare, program));
  symlinkSync(process.execPath, join(bare, "node"));
  writeFileSync(join(folder, "package.json"), '{ "name": "empty", "private": true }');
}, 300_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the packed package, installed without a compiler", () => {
  it("installs, and says in one line what is missing", () => {
    const tarball = execFileSync("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", folder], { cwd: root, encoding: "utf8" }).trim().split("\n").at(-1) as string;
    const said = run("npm", ["install", "--offline", "--no-audit", "--no-fund", "--foreground-scripts", join(folder, tarball)], { PATH: bare });
    expect(said.match(/^mlx-vk: .*$/gm)).toEqual([expect.stringMatching(/^mlx-vk: built without the Vulkan addon \(.+\); it will run on the CPU\.$/)]);
  }, 300_000);
  it("needs no other package to run, and holds what it names", () => {
    const meta = JSON.parse(readFileSync(join(home, "package.json"), "utf8")) as Record<string, unknown>;
    expect(meta["dependencies"] ?? {}).toEqual({});
    expect(Object.keys(meta["optionalDependencies"] as object)).toEqual(["cmake-js", "node-addon-api"]);
    const files = ["dist/types/index.d.ts", "dist/types/llm/index.d.ts", "LICENSE", "README.md", "dist/THIRD_PARTY_LICENSES.txt", "native/CMakeLists.txt", "native/install.mjs", "native/package.json", "native/vk.h", "native/open.cc"];
    for (const file of files) expect(existsSync(join(home, file)), file).toBe(true);
    expect(existsSync(join(home, "native", "build", "Release"))).toBe(false);
    const wanted = execFileSync("sh", ["-c", "ls shaders/spv | wc -l"], { cwd: root, encoding: "utf8" });
    expect(execFileSync("sh", ["-c", "ls shaders/spv | wc -l"], { cwd: home, encoding: "utf8" })).toBe(wanted);
  });
  it("works as an ES module, and both entries share one library", () => {
    writeFileSync(
      join(folder, "use.mjs"),
      `import { mx, core, nn } from "mlx-vk";
       import { generate, load } from "mlx-vk/llm";
       const folder = new URL("node_modules/mlx-vk/models/demo-shakespeare-4bit", import.meta.url).pathname;
       const { model, tokenizer } = await load(folder);
       const text = await generate(model, tokenizer, "ROMEO:", { maxTokens: 5 });
       console.log(JSON.stringify({ sum: mx.add(mx.array([1, 2]), 1).tolist(), same: mx === core, linear: typeof nn.Linear, own: model.parameters().model.norm.weight instanceof mx.array, text: text.length > 0 }));`,
    );
    expect(JSON.parse(node(["use.mjs"]))).toEqual({ sum: [2, 3], same: true, linear: "function", own: true, text: true });
  });
  it("works from CommonJS", () => {
    writeFileSync(
      join(folder, "use.cjs"),
      `const { mx } = require("mlx-vk");
       const { load } = require("mlx-vk/llm");
       const folder = require("node:path").join(__dirname, "node_modules/mlx-vk/models/demo-shakespeare-4bit");
       load(folder).then(({ model }) => console.log(JSON.stringify({ item: mx.sum(mx.arange(5)).item(), own: model.parameters().model.norm.weight instanceof mx.array })));`,
    );
    expect(JSON.parse(node(["use.cjs"]))).toEqual({ item: 10, own: true });
  });
  it("has the command", () => {
    const bin = join(folder, "node_modules", ".bin", "mlx-vk");
    const text = execFileSync(process.execPath, [bin, "generate", "--prompt", "ROMEO:", "--max-tokens", "4", "--json"], { cwd: folder, encoding: "utf8" });
    const result = JSON.parse(text.trim().split("\n").at(-1) as string) as { generationTokens: number; tokens: number[] };
    expect(result.generationTokens).toBe(4);
    expect(result.tokens).toHaveLength(4);
  });
  it("tells why there is no GPU and what to do, and DEVICE=gpu fails with the same line", () => {
    const { vulkan } = info();
    expect(vulkan.reason).toMatch(/^the Vulkan addon is not built \(.+\); .*npm rebuild mlx-vk$/);
    expect(info({ DEVICE: "cpu" }).vulkan).toEqual(vulkan);
    const failed = spawnSync(process.execPath, ["use.mjs"], { cwd: folder, encoding: "utf8", env: { ...process.env, DEVICE: "gpu" } });
    expect(failed.status).toBe(1);
    expect(failed.stderr).toContain(vulkan.reason);
  });
  it("skips the build on request", () => {
    const said = node([join(home, "native", "install.mjs")], { MLX_VK_BUILD: "0" });
    expect(said).toBe("mlx-vk: built without the Vulkan addon (MLX_VK_BUILD=0); it will run on the CPU.");
    expect(info().vulkan.reason).toMatch(/^the Vulkan addon is not built \(MLX_VK_BUILD=0\); /);
  });
});

const builds = ["cmake", process.env["CXX"] ?? "c++"].every((p) => spawnSync(p, ["--version"]).status === 0);
describe.skipIf(!builds && !vulkanRequired)("the packed package, with a compiler", () => {
  it("builds the addon without any download", () => {
    for (const name of ["cmake-js", "node-addon-api", "node-api-headers"]) {
      if (!existsSync(join(folder, "node_modules", name))) symlinkSync(join(root, "node_modules", name), join(folder, "node_modules", name));
    }
    const nowhere = "http://127.0.0.1:9";
    // An empty home: no headers of an earlier build. The variable is one that npm sets for its scripts and that cmake-js would heed.
    const said = run("npm", ["rebuild", "--offline", "--foreground-scripts", "mlx-vk"], { HOME: bare, http_proxy: nowhere, https_proxy: nowhere, HTTP_PROXY: nowhere, HTTPS_PROXY: nowhere });
    expect(said).not.toContain("without the Vulkan addon");
    expect(existsSync(join(home, "native", "build", "Release", "mlx_vk.node"))).toBe(true);
  }, 300_000);
  it("finds the devices of this machine, or says why there is none", () => {
    const { vulkan } = info();
    expect(vulkan.device ?? vulkan.reason).toMatch(/./);
    expect(vulkan.reason ?? "").not.toContain("addon");
    if (!vulkanRequired) return;
    expect(info({ MLX_VK_DEVICE: "0" }).vulkan.device).toMatch(/./);
  });
});
