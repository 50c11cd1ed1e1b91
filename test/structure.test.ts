/** Imports point one way. The table says what each part may see; a file that reaches further fails here. */
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const src = join(dirname(fileURLToPath(import.meta.url)), "..", "src");
const allowed: Readonly<Record<string, readonly string[]>> = {
  core: [],
  ops: ["core"],
  // Exported functions are files.
  transforms: ["core", "ops", "io"],
  codegen: ["core"],
  backend: ["core", "codegen"],
  // What was measured is kept per version of the package.
  schedule: ["core", "ops", "codegen", "backend", "package.ts"],
  debug: ["core", "ops", "codegen", "schedule", "backend"],
  // Files are read straight into storage, below the public surface.
  io: ["core", "ops"],
  // The public surface.
  "mx.ts": ["core", "ops", "transforms", "schedule", "backend", "io", "debug"],
  "trees.ts": ["mx.ts", "index.ts"],
  nn: ["mx.ts", "index.ts", "trees.ts"],
  llm: ["mx.ts", "index.ts", "nn", "trees.ts"],
  optimizers: ["index.ts", "nn", "trees.ts"],
  "index.ts": ["mx.ts", "nn", "optimizers", "trees.ts"],
  "cjs.ts": ["index.ts", "llm"],
  cli: ["index.ts", "llm", "mx.ts", "package.ts"],
  "package.ts": [],
  "build.ts": [],
};
const files = readdirSync(src, { recursive: true, encoding: "utf8" }).filter((f) => f.endsWith(".ts") && !f.endsWith(".d.ts"));
const partOf = (file: string): string => file.split(sep)[0] as string;

it("follows the allowed arrows", () => {
  const wrong: string[] = [];
  for (const file of files) {
    const part = partOf(file);
    const may = allowed[part];
    expect(may, `src/${file}: ${part} is not in the table of parts`).toBeDefined();
    const text = readFileSync(join(src, file), "utf8");
    for (const match of text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)) {
      const target = partOf(relative(src, join(src, dirname(file), match[1] as string)));
      if (target !== part && !may?.includes(target)) wrong.push(`src/${file} imports ${match[1]}`);
    }
  }
  expect(wrong).toEqual([]);
});

it("no file is longer than 800 lines", () => {
  const long = files.filter((f) => !f.includes(".gen.")).filter((f) => readFileSync(join(src, f), "utf8").split("\n").length > 800);
  expect(long).toEqual([]);
});

it("process.env is read in one place only", () => {
  const readers = files.filter((f) => !f.includes(".gen.") && readFileSync(join(src, f), "utf8").includes("process.env"));
  // llm/hub.ts reads the hub's own variables (HF_HOME and others), which all its tools share.
  expect(readers.filter((f) => !["core/env.ts", "schedule/gate.ts", "build.ts", "llm/hub.ts"].includes(f.split(sep).join("/")))).toEqual([]);
});
