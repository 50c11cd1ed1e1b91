/** What users get: the packed package, installed into an empty folder, as ES module, as CommonJS and as a command. Needs `npm run build` (done by `npm ci`). */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "mlx-vk-package-"));
const npm = (args: string[], cwd: string): string => execFileSync("npm", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
const node = (args: string[]): string => execFileSync(process.execPath, args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

beforeAll(() => {
  expect(existsSync(join(root, "dist", "index.js")), "dist/ is missing: run npm run build").toBe(true);
  const tarball = npm(["pack", "--ignore-scripts", "--silent", "--pack-destination", folder], root).trim().split("\n").at(-1) as string;
  writeFileSync(join(folder, "package.json"), '{ "name": "empty", "private": true }');
  npm(["install", "--offline", "--no-audit", "--no-fund", join(folder, tarball)], folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the packed package", () => {
  it("has no dependencies and holds what it names", () => {
    const meta = JSON.parse(readFileSync(join(folder, "node_modules", "mlx-vk", "package.json"), "utf8")) as Record<string, unknown>;
    expect(meta["dependencies"] ?? {}).toEqual({});
    for (const file of ["dist/types/index.d.ts", "dist/types/llm/index.d.ts", "LICENSE", "README.md", "dist/THIRD_PARTY_LICENSES.txt"]) {
      expect(existsSync(join(folder, "node_modules", "mlx-vk", file)), file).toBe(true);
    }
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
});
